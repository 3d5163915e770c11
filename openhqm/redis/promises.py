# -*- test-case-name: tests.redis.test_promises -*-
"""What this Redis can promise by the way it is set up: read from the server, never assumed."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

OLDEST = (6, 2)
SYNC = {
    "everysec": "appendfsync is everysec: a 202 may lose up to 1 s on a power cut; appendfsync always loses nothing",
    "": "appendfsync could not be read (CONFIG is refused): a 202 may lose what Redis has not synced on a power cut",
}


@attrs.frozen
class Promises:
    """Whether a 202 survives a restart of Redis, and what an operator should know besides.

    ``largest`` is how many bytes it holds (``maxmemory``); None: as many as there is memory for, or it does not tell.
    """

    durable: bool
    warnings: tuple[str, ...]
    largest: int | None = None


def read_info(text: bytes) -> dict[str, str]:
    """The fields of an INFO answer."""
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def promises(info: Mapping[str, str], appendfsync: str | None) -> Promises:
    """What follows from INFO and from ``appendfsync`` (None: CONFIG is refused, as by managed services)."""
    broken: list[str] = []
    known: list[str] = []
    if info.get("aof_enabled") != "1":
        broken.append("appendonly is no: what was accepted is gone when Redis restarts")
    elif appendfsync == "no":
        broken.append("appendfsync is no: a 202 may lose half a minute on a power cut")
    elif (appendfsync or "") in SYNC:
        known.append(SYNC[appendfsync or ""])
    policy = info.get("maxmemory_policy", "")
    if policy != "noeviction" and info.get("maxmemory") != "0":
        broken.append(f"maxmemory-policy is {policy or 'not known'}, not noeviction: Redis may throw away what is kept")
    version = info.get("redis_version", "")
    if not _is_known(version):
        broken.append(f"Redis {version or 'of a version that it does not tell'} is older than 6.2, and not tested")
    most = info.get("maxmemory", "")
    largest = int(most) if most.isdecimal() and most != "0" else None
    return Promises(not broken, (*(f"not durable: {reason}" for reason in broken), *known), largest)


def _is_known(version: str) -> bool:
    parts = version.split(".")
    return len(parts) > 1 and all(part.isdigit() for part in parts[:2]) and tuple(map(int, parts[:2])) >= OLDEST
