"""Tests of `openhqm.mqtt`."""
