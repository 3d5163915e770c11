# -*- test-case-name: tests.ingress.test_tokens -*-
"""Whom a JSON Web Token stands for. A token that was verified is remembered until it expires."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import attrs
from twisted.logger import Logger

from openhqm.errors import OpenHQMError
from openhqm.ingress.key_sets import FetchedKeys, FixedKeys
from openhqm.policy.api_keys import Caller
from openhqm.policy.token_keys import check_signature
from openhqm.policy.token_rules import IssuerRules, rules_for
from openhqm.policy.token_text import MOST_BYTES, TokenRefused, read_token, refuse

MOST_REMEMBERED = 10_000
LOOK_SECONDS = 0.5


class KeysUnavailable(OpenHQMError):
    """Whether a token is good is not known now: the keys of its issuer are being fetched, or cannot be."""


@attrs.frozen
class Issuer:
    """What is asked of the tokens of an issuer, and its keys."""

    rules: IssuerRules
    keys: FetchedKeys | FixedKeys


class Tokens:
    """The tokens of ``issuers``. ``seconds`` is a clock that only goes on, ``now`` the time of day."""

    _log = Logger()

    def __init__(self, issuers: Sequence[Issuer], seconds: Callable[[], float], now: Callable[[], float]) -> None:
        self._issuers: Mapping[str, Issuer] = {each.rules.issuer: each for each in issuers}
        self._rules = {name: each.rules for name, each in self._issuers.items()}
        self._seconds = seconds
        self._now = now
        self._look_at = float("-inf")
        self._generation = 0
        self._known: dict[bytes, tuple[float, Caller]] = {}

    def start(self) -> None:
        """Begin to fetch the keys of all issuers."""
        self._look()

    def stop(self) -> None:
        """End the fetches."""
        for issuer in self._issuers.values():
            issuer.keys.stop()

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the keys of issuers, for `/health`."""
        return [
            f"auth.jwt: the keys of {name} cannot be fetched: {each.keys.failure}"
            for name, each in self._issuers.items()
            if each.keys.failure is not None
        ]

    def caller(self, secret: bytes, verify: bool = True) -> Caller | None:
        """Whom the token stands for; None: it is not good, or not to be verified now. `KeysUnavailable`."""
        if self._seconds() >= self._look_at:
            self._look()
        if len(secret) > MOST_BYTES:
            return None
        digest = sha256(secret).digest()
        known = self._known.get(digest)
        if known is not None:
            if self._now() < known[0]:
                return known[1]
            del self._known[digest]
        if not verify:
            return None
        try:
            expires, caller = self._verify(secret)
        except TokenRefused as refused:
            self._log.debug("a token was refused: it {reason}", reason=str(refused))
            return None
        while len(self._known) >= MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[digest] = expires, caller
        return caller

    def _verify(self, secret: bytes) -> tuple[float, Caller]:
        token = read_token(secret)
        issuer = self._issuers[rules_for(token, self._rules).issuer]
        # Before the signature, whose check costs the most.
        expires = issuer.rules.check_times(token.claims, self._now())
        issuer.rules.check_audience(token.claims)
        keys = issuer.keys
        if not check_signature(token, keys.keys):
            keys.refresh()
            if keys.fetching or not keys.keys:
                raise KeysUnavailable(f"the keys of {issuer.rules.issuer} are not known now")
            if not check_signature(token, keys.keys):
                refuse("has a key (kid) that its issuer does not have, or does not have for this algorithm")
        return expires, attrs.evolve(issuer.rules.caller(token.claims), expires=expires)

    def _look(self) -> None:
        """Twice a second: a token must not be good for longer than its key."""
        self._look_at = self._seconds() + LOOK_SECONDS
        for issuer in self._issuers.values():
            issuer.keys.look()
        generation = sum(each.keys.generation for each in self._issuers.values())
        if generation != self._generation:
            self._generation = generation
            self._known.clear()
