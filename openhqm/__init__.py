"""A durable queue between HTTP callers and the code or service that answers them."""

__version__ = "0.1.0"
