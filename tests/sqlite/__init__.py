"""Tests of `openhqm.sqlite`."""
