"""Tests of `openhqm.fleet`."""
