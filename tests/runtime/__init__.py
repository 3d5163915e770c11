"""Tests of `openhqm.runtime`."""
