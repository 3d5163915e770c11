"""Tests of `openhqm.rabbitmq`."""
