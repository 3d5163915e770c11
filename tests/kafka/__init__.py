"""Tests of Kafka, on a real one."""
