"""Tests of `openhqm.http1`."""
