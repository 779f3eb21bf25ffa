"""Adapters to implementations. No other package of the library imports a framework."""
