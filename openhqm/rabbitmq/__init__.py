"""RabbitMQ as a broker: connections that are kept up, confirmed publishes, lending, delays."""
