"""What a process is told, to have its queue in a server of the tests: the variables of its environment."""

from __future__ import annotations

import json

from tests.brokers import RabbitMQServer, RedisServer
from tests.kafka.server import KafkaServer
from tests.pubsub.server import PROJECT, PubSubServer
from tests.sqs.server import ENVIRONMENT, REGION, SqsServer

Variables = dict[str, str]
LEASE_OF_PUBSUB = 10
"""The shortest that it has, in seconds: what a killed worker had comes after that."""


def records_in(redis: RedisServer) -> Variables:
    """The results and the ledger in Redis, and not in the file of the listener."""
    return {"OPENHQM_CACHE__TYPE": "redis", "OPENHQM_CACHE__REDIS_URL": redis.url}


def queue_in_redis(redis: RedisServer) -> Variables:
    return {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}


def queue_in_rabbitmq(rabbitmq: RabbitMQServer, prefix: str | None = None) -> Variables:
    return {
        "OPENHQM_QUEUE__TYPE": "rabbitmq",
        "OPENHQM_QUEUE__RABBITMQ_URL": rabbitmq.url,
        **({} if prefix is None else {"OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX": prefix}),
    }


def queue_in_kafka(kafka: KafkaServer, prefix: str | None = None) -> Variables:
    return {
        "OPENHQM_QUEUE__TYPE": "kafka",
        "OPENHQM_QUEUE__CONNECTION__KAFKA__BOOTSTRAP_SERVERS": f'["{kafka.bootstrap}"]',
        "OPENHQM_QUEUE__CONNECTION__KAFKA__PARTITIONS": "4",
        **({} if prefix is None else {"OPENHQM_QUEUE__CONNECTION__KAFKA__PREFIX": prefix}),
    }


def queue_in_sqs(sqs: SqsServer) -> Variables:
    ours = {"region": REGION, "endpoint_url": sqs.url}
    return {"OPENHQM_QUEUE__TYPE": "sqs", "OPENHQM_QUEUE__CONNECTION__SQS": json.dumps(ours), **ENVIRONMENT}


def queue_in_pubsub(pubsub: PubSubServer) -> Variables:
    ours = {"project_id": PROJECT, "emulator_host": pubsub.host, "lease_seconds": LEASE_OF_PUBSUB}
    return {"OPENHQM_QUEUE__TYPE": "gcp_pubsub", "OPENHQM_QUEUE__CONNECTION__GCP_PUBSUB": json.dumps(ours)}
