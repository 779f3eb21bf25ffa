"""The numbered specification: requirements, chapters, and the registry that the suite fills."""
