# -*- test-case-name: tests.redis.test_protocols,tests.redis.test_recovery -*-
"""The driver, txredisapi: imported when a Redis is configured, and not before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory

from openhqm.errors import Complaint, ConfigurationError, how_to_install

Heard = Callable[[bytes, bytes], None]


def check_installed(key: str = "queue.type") -> None:
    """`ConfigurationError` about ``key`` where a package that Redis needs is not installed."""
    try:
        import openhqm.redis.protocols  # noqa: F401
    except ImportError as error:
        reason = f"redis needs more than is installed ({error}): {how_to_install('redis')}"
        raise ConfigurationError([Complaint(key, reason)]) from None


def factory(heard: Heard | None, clock: IReactorTime) -> Factory:
    """Makes protocols; with ``heard``, ones that can subscribe."""
    from openhqm.redis.protocols import CommandProtocol, SubscriberProtocol

    makes = (
        partial(CommandProtocol, clock.seconds) if heard is None else partial(SubscriberProtocol, clock.seconds, heard)
    )
    made = Factory.forProtocol(makes)
    made.noisy = False
    return made  # type: ignore[return-value]  # a subscriber sends commands, too


def is_refusal(error: BaseException | None) -> bool:
    """Whether Redis answered, and the answer was an error."""
    from txredisapi import ResponseError

    return isinstance(error, ResponseError)


def is_connection_lost(error: BaseException | None) -> bool:
    """Whether the connection was lost before Redis had answered."""
    from txredisapi import ConnectionError as Lost

    return isinstance(error, Lost)
