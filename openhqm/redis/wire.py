# -*- test-case-name: tests.redis.test_redis -*-
"""txredisapi, imported when a Redis is configured, and not before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory

from openhqm.errors import Complaint, ConfigurationError

Heard = Callable[[bytes, bytes], None]


def check_installed() -> None:
    """`ConfigurationError` where what Redis needs is not there."""
    try:
        import openhqm.redis.protocols  # noqa: F401
    except ImportError as error:
        reason = f"redis needs more than is installed ({error}): pip install openhqm[redis]"
        raise ConfigurationError([Complaint("queue.type", reason)]) from None


def factory(heard: Heard | None, clock: IReactorTime) -> Factory:
    """Makes connections; with ``heard``, ones that can subscribe."""
    from openhqm.redis.protocols import Asker, Listener

    makes = partial(Asker, clock.seconds) if heard is None else partial(Listener, clock.seconds, heard)
    made = Factory.forProtocol(makes)
    made.noisy = False
    return made  # type: ignore[return-value]  # what listens asks, too


def is_refusal(error: BaseException | None) -> bool:
    """Whether Redis answered, and the answer was an error."""
    from txredisapi import ResponseError

    return isinstance(error, ResponseError)


def is_hanging_up(error: BaseException | None) -> bool:
    """Whether the connection was lost before Redis had answered."""
    from txredisapi import ConnectionError as Lost

    return isinstance(error, Lost)
