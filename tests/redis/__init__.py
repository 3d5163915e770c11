"""Tests of `openhqm.redis`."""
