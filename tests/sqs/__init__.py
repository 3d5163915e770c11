"""Tests of the adapter for AWS SQS, on ElasticMQ."""
