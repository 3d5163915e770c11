# -*- test-case-name: tests.ingress.test_access -*-
"""The file of API keys, which is read again when it has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest

from twisted.logger import Logger

from openhqm.ingress.key_use import KeyUse
from openhqm.policy.api_keys import Caller, Key, read_keys
from openhqm.runtime.private_files import read_private

LOOK_SECONDS = 0.5
"""How long a change of the file may be without effect, and half of what users are told: `Access` remembers, too."""
MOST_BYTES = 4 * 1024 * 1024
_MOST_KEY = 64
_Keys = dict[str, tuple[Key, Caller]]
_NONE = Key("0" * 12, "0" * 64, "none", frozenset(), 0, 1)
_UNKNOWN = _NONE, _NONE.caller


class KeyFile:
    """The keys in the file at ``path``. ``seconds`` is a clock that only goes on, ``now`` the time of day.
    ``use`` is told of each use.

    A file that has become wrong changes nothing: the last good keys stand, and the log says what is wrong.
    """

    _log = Logger()

    def __init__(
        self, path: str, seconds: Callable[[], float], now: Callable[[], float], use: KeyUse | None = None
    ) -> None:
        self._use = use
        if use is not None:
            use.known = lambda: [key.id for key, _ in list(self._keys.values())]
        self._path = path
        self._seconds = seconds
        self._now = now
        self._look_at = 0.0
        self._version: tuple[int, ...] | None = None
        self._keys: _Keys = {}

    def open(self) -> None:
        """Read it for the first time. `ValueError` with a sentence that says what is wrong."""
        self._look_at = self._seconds() + LOOK_SECONDS
        self._version, self._keys = self._read()

    def caller(self, secret: bytes) -> Caller | None:
        """Whose key this is; None: it is unknown, or has expired."""
        if self._seconds() >= self._look_at:
            self._look()
        if len(secret) > _MOST_KEY:
            return None
        # How long the table takes tells something of a digest, from which no key follows. The rest is done for every
        # key, so that one that was good once takes about as long as one that never was.
        digest = sha256(secret).hexdigest()
        key, caller = self._keys.get(digest, _UNKNOWN)
        now = self._now()
        same, live = compare_digest(key.digest, digest), key.is_live(now)
        if not (same and live):
            return None
        if self._use is not None:
            self._use.note(key.id, now)
        return caller

    def _look(self) -> None:
        self._look_at = self._seconds() + LOOK_SECONDS
        try:
            if self._version == _version(os.stat(self._path)):
                return
            self._version, self._keys = self._read()
            self._log.info("read {path} again: {count} keys", path=self._path, count=len(self._keys))
        except (OSError, ValueError) as error:
            if self._version is not None:  # it is said once
                self._log.error("{path} is not used: {reason}; the keys before stand", path=self._path, reason=error)
            self._version = None

    def _read(self) -> tuple[tuple[int, ...], _Keys]:
        about, text = read_private(self._path, MOST_BYTES)
        keys = read_keys(text)
        return _version(about), {key.digest: (key, key.caller) for key in keys}


def _version(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size, about.st_mode
