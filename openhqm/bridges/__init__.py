"""Bridges: what other programs put into their own channels becomes requests in our queue."""
