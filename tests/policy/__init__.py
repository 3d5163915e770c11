"""Tests of `openhqm.policy`."""
