"""Tests of Azure Event Hubs, on a real Kafka that asks for a connection string."""
