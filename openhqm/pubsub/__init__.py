"""Google Cloud Pub/Sub as a broker, over its REST interface: topics, subscriptions and leases."""
