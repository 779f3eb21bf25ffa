"""The numbered specification: what a requirement is, its chapters, and the registry that the suite fills."""
