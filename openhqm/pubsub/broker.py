# -*- test-case-name: tests.pubsub.test_contract,tests.pubsub.test_faults -*-
"""Pub/Sub as an `IBroker`: a topic and its subscription for each channel, pulled from, each delivery on a lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred

from openhqm.errors import NotDurable
from openhqm.http1.client import Client, make_client
from openhqm.interfaces import BrokerTraits, DepthKind
from openhqm.pubsub.credentials import GoogleCredentials, find
from openhqm.pubsub.errors import check_installed
from openhqm.pubsub.messages import LARGEST_MESSAGE
from openhqm.pubsub.product import LARGEST_BATCH, PubSubProduct
from openhqm.pubsub.rest import Authorization, NoAuthorization, Rest
from openhqm.pubsub.settings import PubSubSettings
from openhqm.pubsub.subscriptions import Subscriptions, Wanted
from openhqm.pulled.broker import PulledBroker
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.threads import Threads

PROBE_SECONDS = 20.0
TAKE_SECONDS = 90.0
"""How long a pull waits: the service answers an empty one sooner."""
KEPT = 16
"""Idle connections."""


@attrs.frozen
class Address:
    """Where the service is, and as whom. ``credentials`` None: as google-auth finds; not for an emulator."""

    project: str
    base: str
    credentials: str | None = None
    emulator: bool = False

    @classmethod
    def of(cls, ours: PubSubSettings, environment: Mapping[str, str], key: str) -> Address:
        """As the settings say, or the environment of an emulator. `ConfigurationError` where a package is missing, with
        ``key``.
        """
        host = ours.emulator(environment)
        if host is not None:
            return cls(ours.project_id, f"http://{host}", emulator=True)
        check_installed(key)
        return cls(ours.project_id, ours.endpoint, ours.credentials_path)


class PubSubBroker(PulledBroker):
    """The channels of one project. ``seconds`` is how long an answer may take; ``random`` is as `random.random`."""

    def __init__(
        self,
        address: Address,
        reactor: Any,
        random: Callable[[], float],
        wanted: Wanted,
        *,
        seconds: float,
        makes: bool = True,
        take_seconds: float = TAKE_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._missing: dict[str, str] = {}
        self._threads = Threads(reactor, "pubsub", 1)
        self._client = _client(address, reactor)
        rest = self._rest = Rest(self._client, self._authorization(address, reactor), reactor, random, address.base)
        self._channels = Subscriptions(rest, address.project, wanted, seconds)
        product = PubSubProduct(
            rest,
            self._channels,
            reactor,
            address.project,
            seconds=seconds,
            lease=wanted.lease,
            take_seconds=take_seconds,
            own=wanted.own,
        )
        traits = BrokerTraits(
            lease_seconds=wanted.lease,
            counts_redeliveries=wanted.dead_letters is not None,
            largest_message=LARGEST_MESSAGE,
            largest_batch=LARGEST_BATCH,
            native_partitions=True,
            makes_channels=makes,
            depth=DepthKind.NONE,
        )
        super().__init__(
            product,
            traits,
            reactor,
            maybeDeferred,
            name=f"Pub/Sub at {address.base}",
            seconds=2 * seconds,  # its calls have their own limit; a look and a publish are two
            probe_seconds=probe_seconds,
            take_seconds=take_seconds,
            random=random,
        )

    @property
    def warnings(self) -> Sequence[str]:  # type: ignore[override]
        return [*self._channels.warnings, *self._missing.values()]

    @warnings.setter
    def warnings(self, value: Sequence[str]) -> None:
        """There are none of a pulled product itself."""

    @deferred
    async def ensure(self, channel: str) -> None:
        if self.traits.makes_channels:
            await super().ensure(channel)
        elif await self.exists(channel):
            self._missing.pop(channel, None)
        else:
            reason = f"Pub/Sub has no topic {channel} with a subscription of that name: make both, in this order"
            self._missing[channel] = reason
            raise NotDurable(reason)

    def start(self) -> Deferred[None]:
        self._threads.start()
        return super().start()

    @deferred
    async def stop(self) -> None:
        was_stopped = self._stopped
        await super().stop()
        self._rest.close()
        await self._client.close_idle()
        if not was_stopped:
            self._threads.stop()

    def _authorization(self, address: Address, reactor: Any) -> Authorization:
        if address.emulator:
            return NoAuthorization()
        return GoogleCredentials(partial(find, address.credentials), self._threads.run, reactor)


def _client(address: Address, reactor: Any) -> Client:
    tls = None
    if address.base.startswith("https:"):
        from openhqm.runtime.tls import TLSPolicy  # here, because OpenSSL takes a third of an idle process

        tls = TLSPolicy()
    return make_client(reactor, tls, kept=KEPT)
