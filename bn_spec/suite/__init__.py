"""The suite: properties, the cells that judge them, and the search for a failing case."""
