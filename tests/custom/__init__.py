"""Backends of an operator's own, loaded by their dotted path."""
