"""Tests of `openhqm.delivery`."""
