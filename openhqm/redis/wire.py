# -*- test-case-name: tests.test_redis -*-
"""The protocols of txredisapi, dressed for bytes; imported when a Redis is configured, and not before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import Factory

from openhqm.errors import Complaint, ConfigurationError

Heard = Callable[[bytes, bytes], None]
"""Called with the channel and the message."""


def check_installed() -> None:
    """`ConfigurationError` where what Redis needs is not there."""
    try:
        import hiredis  # noqa: F401  # without it txredisapi parses in Python, an eighth as fast
        import txredisapi  # noqa: F401
    except ImportError as error:
        reason = f"redis needs more than is installed ({error}): pip install openhqm[redis]"
        raise ConfigurationError([Complaint("queue.type", reason)]) from None


def factory(heard: Heard | None) -> Factory:
    """Makes connections; with ``heard``, ones that can subscribe.

    Bytes come and go as they are. Names, passwords and databases are told by whoever connects, not by the protocol,
    which would give up for ever over a wrong password.
    """
    from txredisapi import RedisProtocol, SubscriberProtocol

    if heard is None:
        return _factory(RedisProtocol)
    tell = heard

    class Listener(SubscriberProtocol):  # type: ignore[misc]
        def messageReceived(self, pattern: Any, channel: bytes, message: bytes) -> None:
            tell(channel, message)

    return _factory(Listener)


def _factory(protocol: Any) -> Factory:
    made = Factory.forProtocol(partial(protocol, charset=None, convertNumbers=False))
    made.noisy = False
    return made


def is_refusal(error: BaseException | None) -> bool:
    """Whether Redis answered, and the answer was an error."""
    from txredisapi import ResponseError

    return isinstance(error, ResponseError)


def is_hanging_up(error: BaseException | None) -> bool:
    """Whether the connection was lost before Redis had answered."""
    from txredisapi import ConnectionError as Lost

    return isinstance(error, Lost)
