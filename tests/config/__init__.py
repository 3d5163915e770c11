"""Tests of `openhqm.config`."""
