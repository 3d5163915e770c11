"""Tests of Google Cloud Pub/Sub, on Google's in-memory server behind a REST front: see ``pubsubd``."""
