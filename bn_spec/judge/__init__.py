"""The judge: compares an observation with its expectation."""
