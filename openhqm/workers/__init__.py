"""The workers: they receive requests from the queues, call handlers or targets, and settle the deliveries."""
