"""Adapters to implementations; nothing else in the library imports a framework."""
