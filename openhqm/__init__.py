"""A durable queue between whoever calls over HTTP and whatever answers."""

__version__ = "0.1.0"
