"""Twisted mechanics that know nothing of requests."""
