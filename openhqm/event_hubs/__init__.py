"""Azure Event Hubs as a broker: the Kafka adapter over the service's Kafka endpoint, with what is different there."""
