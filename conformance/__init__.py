"""The suite that pytest collects: one file per chapter of the specification, one property per requirement."""
