"""Whether the time of a check tells anything of a secret: Welch's t over samples of two kinds of input, in turns.

    python -m benchmarks.timing [--samples 10000]

Each pair is two inputs that get the same answer. Measured is the function that decides, without HTTP around it: what a
network hides is not hidden by the code. That there is no request of an id is said after a while: measured is the time
from the question to the answer, over the embedded file. As in dudect (Reparaz, Balasch, Verbauwhede, 2017), the slowest
samples are left out, and a t of 4.5 or more is a difference; then the exit code is 1. The last lines are only told: a
right key is answered otherwise anyway, and only who has an expired key can send it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import hmac
import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet.defer import ensureDeferred, gatherResults, maybeDeferred
from twisted.python.failure import Failure

from openhqm.config.model import Admin
from openhqm.delivery.tenant_records import TenantRecords
from openhqm.errors import UnknownRequest
from openhqm.ingress.admin import AdminListener
from openhqm.ingress.key_file import KeyFile
from openhqm.messages import Submission
from openhqm.policy.api_keys import Key, Role, digest_of, new_key, write_keys
from openhqm.policy.hook_signatures import NotGenuine, verify
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue import SqliteQueue
from openhqm.sqlite.results import SqliteResults

LIMIT = 4.5
KEPT = 0.9
"""Of the samples of each kind: the slowest were interrupted."""
LANES = 20
"""So many wait for an answer at a time."""
Check = Callable[[Any], object]


def welch(one: list[float], two: list[float]) -> float:
    """Welch's t of two samples."""
    spread = statistics.variance(one) / len(one) + statistics.variance(two) / len(two)
    return abs(statistics.fmean(one) - statistics.fmean(two)) / math.sqrt(spread) if spread else 0.0


def samples(
    check: Check, one: Callable[[], Any], two: Callable[[], Any], count: int
) -> tuple[list[float], list[float]]:
    """Nanoseconds of ``check`` for so many inputs of each kind, in a random order."""
    # All are made before the first is measured: what making one leaves in the caches is no matter of the check.
    inputs = [(kind, make()) for kind, make in enumerate((one, two)) for _ in range(count)]
    random.shuffle(inputs)
    found: tuple[list[float], list[float]] = ([], [])
    for _, value in inputs[: count // 10]:
        check(value)
    gc.collect()
    gc.disable()
    for kind, value in inputs:
        began = time.perf_counter_ns()
        check(value)
        found[kind].append(time.perf_counter_ns() - began)
    gc.enable()
    kept = int(count * KEPT)
    return sorted(found[0])[:kept], sorted(found[1])[:kept]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, default=10_000)
    count = options.parse_args().samples
    worst = 0.0
    with tempfile.TemporaryDirectory() as directory:
        file, right, expired = _keys(Path(directory))
        pairs: list[tuple[str, Check, Callable[[], Any], Callable[[], Any]]] = [
            ("a random key, right but for its end", file.caller, _random_key, lambda: _but_for_its_end(right)),
            ("a webhook's signature: wrong at its beginning, at its end", *_hook()),
            ("a key of the admin listener: wrong at its beginning, at its end", *_admin()),
        ]
        for name, check, one, two in pairs:
            worst = max(worst, _tell(name, *samples(check, one, two, count)))
        name = "an id that was never given out, one of another tenant"
        worst = max(worst, _tell(name, *_unknown(Path(directory), count)))
        for name, key in (("a right key", right), ("an expired key", expired)):
            one, two = samples(file.caller, lambda key=key: _copy(key), _random_key, count)  # type: ignore[misc]
            _tell(f"({name}, a random one)", one, two)
    sys.exit(worst >= LIMIT)


def _tell(name: str, one: list[float], two: list[float]) -> float:
    t = welch(one, two)
    print(f"t {t:6.2f}  {statistics.median(one):7.0f} ns {statistics.median(two):7.0f} ns  {name}")
    return t


def _keys(directory: Path) -> tuple[KeyFile, bytes, bytes]:
    """A file of a hundred keys, one of them, and one that has expired."""
    path = directory / "keys.json"
    roles = frozenset({Role.SUBMIT})
    made = [new_key(secrets.token_bytes) for _ in range(100)]
    kept = [
        Key(f"{number:012x}", digest_of(each), "acme", roles, 1, 2 if number == 1 else None)
        for number, each in enumerate(made)
    ]
    path.write_text(write_keys(kept))
    path.chmod(0o600)
    file = KeyFile(str(path), lambda: 0.0, time.time)  # its clock stands: it does not look at the file
    file.open()
    return file, made[0].encode(), made[1].encode()


def _unknown(directory: Path, count: int) -> tuple[list[float], list[float]]:
    """Nanoseconds until it is said that there is no such request, so many times for each kind, in a random order."""
    found: tuple[list[float], list[float]] = ([], [])
    kinds = [0, 1] * count
    random.shuffle(kinds)

    from twisted.internet import reactor as installed

    reactor: Any = installed

    async def ask(records: TenantRecords, foreign: Sequence[str]) -> None:
        while kinds:
            kind = kinds.pop()
            id = str(uuid4()) if kind == 0 else random.choice(foreign)
            began = time.perf_counter_ns()
            try:
                await records.find(id, "b")
            except UnknownRequest:
                found[kind].append(time.perf_counter_ns() - began)

    async def ask_all() -> None:
        file = SqliteFile(str(directory / "data"), reactor, lambda commit: maybeDeferred(commit))
        store = SqliteResults(file, reactor, 3600.0)
        queue = SqliteQueue(file, store, reactor, requests="requests", dead_letters="dead")
        await queue.start()
        ids = [(await queue.accept(Submission(b"1", tenant=name), None)).correlation_id for name in "a" * 100 + "b"]
        records = TenantRecords(store, reactor)
        await records.find(ids.pop(), "b")
        await gatherResults([ensureDeferred(ask(records, ids)) for _ in range(LANES)])
        await queue.stop()

    def end(outcome: Any) -> Any:
        reactor.stop()
        return outcome

    asking: Any = ensureDeferred(ask_all()).addBoth(end)
    reactor.run()
    if isinstance(asking.result, Failure):
        asking.result.raiseException()
    kept = int(count * KEPT)
    return sorted(found[0])[:kept], sorted(found[1])[:kept]


def _copy(key: bytes) -> bytes:
    return bytes(bytearray(key))  # bytes(key) would be the same object, which stays in the caches


def _random_key() -> bytes:
    return new_key(secrets.token_bytes).encode()


def _but_for_its_end(key: bytes) -> bytes:
    return key[:-6] + secrets.token_hex(3).encode()


def _changed(text: str, at: int) -> str:
    return f"{text[:at]}{'0' if text[at] != '0' else '1'}{text[at + 1 :]}"


def _hook() -> tuple[Check, Callable[[], Any], Callable[[], Any]]:
    body, secret = b'{"event": "push"}', "a secret of a hook"
    right = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def check(signature: str) -> None:
        fields = {b"x-hub-signature-256": f"sha256={signature}".encode(), b"x-github-delivery": b"1"}
        try:
            verify("github", [secret], fields.get, body, 0.0, 300.0)
        except NotGenuine:
            return
        raise AssertionError("it is genuine")

    return check, lambda: _changed(right, 0), lambda: _changed(right, len(right) - 1)


def _admin() -> tuple[Check, Callable[[], Any], Callable[[], Any]]:
    right = secrets.token_hex(32)
    listener: Any = AdminListener.__new__(AdminListener)
    listener._admin = Admin(port=0, key=right)

    def check(key: str) -> None:
        assert not listener._may(f"Bearer {key}".encode())

    return check, lambda: _changed(right, 0), lambda: _changed(right, len(right) - 1)


if __name__ == "__main__":
    main()
