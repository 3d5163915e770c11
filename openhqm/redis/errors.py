# -*- test-case-name: tests.redis.test_errors -*-
"""What Redis's refusals mean for an operator."""

from __future__ import annotations

import attrs


@attrs.frozen
class Refusal:
    """Why, and whether another connection may lead to a server that accepts the command."""

    reason: str
    elsewhere: bool = False


_KNOWN = {
    "OOM": Refusal("Redis is full: it has reached maxmemory"),
    "MISCONF": Refusal("Redis cannot write to its disk and takes no writes"),
    "READONLY": Refusal("this Redis is a read-only replica", elsewhere=True),
    "LOADING": Refusal("Redis is reading its data into memory", elsewhere=True),
    "MASTERDOWN": Refusal("this Redis is a replica that has lost its master", elsewhere=True),
    "NOREPLICAS": Refusal("Redis has fewer replicas than min-replicas-to-write asks for"),
    "CLUSTERDOWN": Refusal("the Redis cluster is down"),
    "MOVED": Refusal("this Redis is one node of a cluster, which is not supported"),
    "BUSY": Refusal("Redis is busy with a script that does not end: SCRIPT KILL ends it"),
    "WRONGPASS": Refusal("Redis refuses the user name or the password", elsewhere=True),
    "NOAUTH": Refusal("Redis asks for a password, and none is configured", elsewhere=True),
    "NOPERM": Refusal("the Redis user may not do what is needed"),
}


def refusal(text: str) -> Refusal:
    """What an error reply means; one that is not known is quoted."""
    code = text.partition(" ")[0]
    known = _KNOWN.get(code)
    if known is None and "invalid password" in text:  # Redis before 6
        known = _KNOWN["WRONGPASS"]
    if known is None and "without any password configured" in text:
        return Refusal("a password is configured, and this Redis has none", elsewhere=True)
    if known is None:
        return Refusal(f"Redis refused: {text}")
    if code == "NOPERM":
        return Refusal(f"{known.reason}: {text.partition(' ')[2]}")
    return known
