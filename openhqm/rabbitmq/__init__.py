"""RabbitMQ as a broker: connections that are kept up, confirmed publishes, subscriptions to quorum queues."""
