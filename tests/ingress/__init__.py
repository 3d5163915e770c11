"""Tests of `openhqm.ingress`."""
