"""Tests of `openhqm.storeless`."""
