"""The commands of ``bn-spec``: a module for each, that renders what the library returns."""
