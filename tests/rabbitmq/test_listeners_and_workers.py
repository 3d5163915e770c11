"""Listeners and workers in processes of their own on one RabbitMQ, with the ledger in Redis."""

from __future__ import annotations

from tests.brokers import shared_rabbitmq
from tests.redis import test_roles as test_redis_roles


class ListenersAndWorkersTests(test_redis_roles.RolesTests):
    """Two listeners, and workers that come and go. No lease runs out here: a lost connection ends every lease."""

    def backend(self) -> dict[str, str]:
        return {
            "OPENHQM_QUEUE__TYPE": "rabbitmq",
            "OPENHQM_QUEUE__RABBITMQ_URL": shared_rabbitmq().url,
            "OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX": f"{self.id()}.",
            "OPENHQM_QUEUE__LEASE_SECONDS": "600",
            "OPENHQM_CACHE__TYPE": "redis",
            "OPENHQM_CACHE__REDIS_URL": self.redis.url,
        }
