"""AWS SQS as a broker: our queue inside it, and the queues of other programs. boto3 runs in threads of its own."""
