"""Tests of `openhqm.workers`."""
