"""Tests of `openhqm.command`."""
