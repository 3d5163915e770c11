"""Mechanics of Twisted and of the process that know nothing of requests."""
