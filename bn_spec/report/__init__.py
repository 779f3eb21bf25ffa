"""Records of a run, and the reports that are made from them."""
