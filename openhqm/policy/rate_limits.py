# -*- test-case-name: tests.policy.test_rate_limits -*-
"""How often each caller may ask: the generic cell rate algorithm (ITU-T I.371), one state for each caller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import attrs

MOST_CALLERS = 100_000
NO_SECONDS = 1e-9
"""A wait that is none: what was added and taken away again differs in its last bits."""


@attrs.frozen
class Taken:
    """What a caller got. ``wait``: refused, and so many seconds until it would not be; 0: allowed.

    ``remaining`` is how many more it may send now, and ``reset`` the seconds until it may send all again.
    """

    wait: float
    remaining: int
    reset: float


class Account:
    """What one caller has taken of a limit: ``due`` is when it will have paid for that. Once it is ``forgotten``, the
    caller has another one.
    """

    __slots__ = ("due", "forgotten", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.due = 0.0
        self.forgotten = False


class RateLimits:
    """At most ``requests`` in ``per_seconds`` for each caller, and up to ``burst`` of them at once.

    Of more than ``most`` callers, those that have been quiet for longest are forgotten, which is in their favour.

    ``owes``: what is taken may be more than is left, as long as anything is, and has to be waited for afterwards. So
    what is larger than a burst is paid for as a whole.

    ``processes`` is how many processes keep the limit together. What is taken counts for that many: so each has its
    share until it is `told` what all have taken. ``on_taken``, where it is set, is called with each caller and the
    seconds of the limit that it took.
    """

    def __init__(
        self,
        requests: int,
        per_seconds: float,
        burst: int | None = None,
        most: int = MOST_CALLERS,
        *,
        owes: bool = False,
    ) -> None:
        self.requests = requests
        self.per_seconds = per_seconds
        self.processes = 1
        self.on_taken: Callable[[bytes, float], object] | None = None
        self._owes = owes
        self._burst = burst or requests
        self._interval = per_seconds / requests
        self._window = self._burst * self._interval
        self._most_due, self._most_owed = (each + NO_SECONDS for each in (self._window, self._window - self._interval))
        self._most = most
        self._accounts: OrderedDict[bytes, Account] = OrderedDict()

    def take(self, caller: bytes, count: int, now: float) -> Taken:
        """Take ``count`` requests of ``caller``, all of them or none. More than the burst count as that."""
        account = self.account(caller)
        owed = self.pay(account, count, now)
        if owed is None:
            return self.look(caller, now, count)
        if self.on_taken is not None:
            self.on_taken(caller, self.cost(count))
        return Taken(0.0, self.left(owed), owed)

    def look(self, caller: bytes, now: float, count: int = 1) -> Taken:
        """What a caller gets that is refused ``count`` requests, here or elsewhere: nothing is taken."""
        wait, owed = self.ask(self.account(caller), count, now)
        return Taken(wait, self.left(owed), owed)

    def wait(self, caller: bytes, now: float) -> float:
        """For how many seconds ``caller`` may take nothing; 0: it may. One that has taken nothing is not remembered."""
        account = self._accounts.get(caller)
        return 0.0 if account is None else self.ask(account, 1, now)[0]

    def account(self, caller: bytes) -> Account:
        """That of ``caller``."""
        account = self._accounts.get(caller)
        if account is None:
            if len(self._accounts) >= self._most:
                _, quiet = self._accounts.popitem(last=False)
                quiet.forgotten = True
            account = self._accounts[caller] = Account(caller)
        return account

    def ask(self, account: Account, count: int, now: float) -> tuple[float, float]:
        """How many seconds a caller has to wait until it may send so many more (0: none), and the seconds until it
        will have paid for what it has sent. Nothing is taken.
        """
        self._accounts.move_to_end(account.name)  # it is not quiet
        owed = max(0.0, account.due - now)
        need = 1 if self._owes else min(count, self._burst)
        wait = owed + (need - self._burst) * self._interval
        return (wait, owed) if wait > NO_SECONDS else (0.0, owed)

    def pay(self, account: Account, count: int, now: float) -> float | None:
        """Take ``count`` requests of a caller; what it owes then, or None where it has to wait: then nothing is taken.

        Who has not told ``on_taken`` of it may still give it back.
        """
        if len(self._accounts) > 1:
            self._accounts.move_to_end(account.name)
        owed = account.due - now
        if owed < 0.0:
            owed = 0.0
        # Written out, as `ask` and `cost` have it, for each submission pays for it.
        cost = count * self._interval
        if self._owes:
            if owed > self._most_owed:
                return None
        else:
            if cost > self._window:
                cost = self._window
            if owed + cost > self._most_due:
                return None
        owed += cost * self.processes
        account.due = now + owed
        return owed

    def give_back(self, account: Account, count: int) -> None:
        """What was taken by `pay` just now was not."""
        account.due -= self.cost(count) * self.processes

    def cost(self, count: int) -> float:
        """The seconds of the limit that ``count`` requests take."""
        return (count if self._owes else min(count, self._burst)) * self._interval

    def told(self, caller: bytes, owed: float, now: float) -> None:
        """All processes together have taken so much that ``caller`` owes ``owed`` seconds now."""
        self.account(caller).due = now + owed

    def left(self, owed: float) -> int:
        """How many requests a caller may send now that owes so many seconds."""
        left = self._burst - owed / self._interval + 1e-6
        return int(left) if left > 0.0 else 0
