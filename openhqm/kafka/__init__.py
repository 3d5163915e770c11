"""Apache Kafka as a broker: `openhqm.interfaces.IBroker` over confluent-kafka (librdkafka)."""
