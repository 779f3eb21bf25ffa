"""Judging an observation against its expectation."""
