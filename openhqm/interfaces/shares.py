# -*- test-case-name: openhqm.testing,tests.policy.test_fair_shares -*-
"""Between a worker pool, which knows what each tenant is owed, and a queue, which knows whose requests wait."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from zope.interface import Attribute, Interface


class IShares(Interface):
    """Whose requests a queue delivers next (`IMessageQueue.receive`).

    A name is that of a tenant whose requests wait by themselves; None is for all others together.
    """

    names: Sequence[str | None] = Attribute("all names, None among them; there may be more of them later")
    on_change: Callable[[], object] | None = Attribute(
        "called when `choose` may choose what it has not chosen before; the queue sets it"
    )

    def choose(
        waiting: Collection[str | None], most: int, pending: Mapping[str | None, int]
    ) -> Mapping[str | None, int]:
        """How many requests to take of each that has some ``waiting``: up to ``most`` together. Nothing is charged.

        ``pending`` are those that were taken before, and are not delivered yet.
        """

    def charge(taken: Mapping[str | None, int]) -> None:
        """So many requests of each are delivered together."""
