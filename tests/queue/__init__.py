"""Tests of `openhqm.queue`."""
