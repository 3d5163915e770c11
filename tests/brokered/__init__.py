"""Tests of `openhqm.brokered`."""
