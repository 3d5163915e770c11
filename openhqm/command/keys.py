# -*- test-case-name: tests.command.test_keys -*-
"""``openhqm keys``: the file of API keys. It asks no process; a process that runs sees a change within a second."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from openhqm.command.text import table
from openhqm.policy.api_keys import Key, Role, check_tenant, digest_of, new_key, read_keys, write_keys
from openhqm.policy.key_use import MOST_BYTES, SUFFIX, read_use
from openhqm.runtime.times import rfc3339

OVERLAP = "24h"
"""For how long a key that is rotated stands beside the new one."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d{1,6})([smhd])")
Print = Callable[[str], object]


def add_keys(commands: Any) -> None:
    """Add ``keys`` and its actions to the subcommands of a parser."""
    keys = commands.add_parser("keys", help="make, list, rotate or revoke API keys", allow_abbrev=False)
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = _action(actions, "new", "make a key, and print it: it is not kept, and cannot be printed again")
    new.add_argument("--tenant", required=True, metavar="NAME", help="whose key it is")
    roles = [role.value for role in Role]
    new.add_argument("--role", action="append", required=True, choices=roles, metavar="ROLE", help=", ".join(roles))
    new.add_argument("--expires-in", metavar="TIME", help="90d, 12h: it is good for so long (default: until revoked)")
    _action(actions, "list", "list the keys, without what opens anything")
    rotate = _action(actions, "rotate", "make a key like another one, which expires soon")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument(
        "--overlap", default=OVERLAP, metavar="TIME", help=f"for how long both are good (default: {OVERLAP})"
    )
    revoke = _action(actions, "revoke", "revoke keys at once")
    revoke.add_argument("ids", nargs="+", metavar="ID")


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=f"{summary}.", allow_abbrev=False
    )
    action.add_argument("--file", required=True, metavar="FILE", help="the file that auth.keys_file names")
    return action


def run_keys(asked: argparse.Namespace, out: Print, err: Print, now: float) -> int:
    """Carry out an action, and return the exit code. `ValueError`."""
    path = Path(asked.file)
    if asked.action == "list":
        _list(_read(path), _use(path), out, now)
        return 0
    with _changing(path) as keys:
        if asked.action == "revoke":
            unknown = sorted(set(asked.ids) - {key.id for key in keys})
            if unknown:
                raise ValueError(f"{path} has no key {', '.join(unknown)}: nothing was revoked")
            keys[:] = [key for key in keys if key.id not in asked.ids]
            made = None
        elif asked.action == "rotate":
            made = _rotate(keys, asked.id, path, int(now) + _seconds(asked.overlap), int(now))
        else:
            expires = None if asked.expires_in is None else int(now) + _seconds(asked.expires_in)
            made = _add(keys, check_tenant(asked.tenant), frozenset(map(Role, asked.role)), int(now), expires)
    # What is printed is in the file already.
    if made is not None:
        key, secret = made
        err(f"openhqm: key {key.id} of {key.tenant}; keep what is printed now, it is nowhere else")
        out(secret)
    return 0


def _add(keys: list[Key], tenant: str, roles: frozenset[Role], now: int, expires: int | None) -> tuple[Key, str]:
    secret = new_key(secrets.token_bytes)
    key = Key(secrets.token_hex(6), digest_of(secret), tenant, roles, now, expires)
    keys.append(key)
    return key, secret


def _rotate(keys: list[Key], id: str, path: Path, end: int, now: int) -> tuple[Key, str]:
    for index, key in enumerate(keys):
        if key.id == id:
            if not key.is_live(now):
                raise ValueError(f"key {id} has expired: make a new one with openhqm keys new")
            keys[index] = attrs.evolve(key, expires=end if key.expires is None else min(end, key.expires))
            return _add(keys, key.tenant, key.roles, now, key.expires)
    raise ValueError(f"{path} has no key {id}")


def _use(path: Path) -> dict[str, int] | None:
    """When each key was used last, or None: no process has written that."""
    try:
        with open(f"{path}{SUFFIX}", "rb") as file:
            return read_use(file.read(MOST_BYTES))
    except OSError:
        return None


def _list(keys: Sequence[Key], use: Mapping[str, int] | None, out: Print, now: float) -> None:
    rows = []
    for key in keys:
        expires = "never" if key.expires is None else rfc3339(key.expires)
        over = "" if key.is_live(now) else " (over)"
        roles = ",".join(sorted(role.value for role in key.roles))
        used = "unknown" if use is None else rfc3339(use[key.id]) if key.id in use else "never"
        rows.append((key.id, key.tenant, roles, rfc3339(key.created), expires + over, used))
    for line in table(("id", "tenant", "roles", "created", "expires", "last used"), rows):
        out(line)


def _read(path: Path) -> list[Key]:
    try:
        return read_keys(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """The keys of the file, which is replaced in one step at the end; nothing is written where that fails.

    Another command waits until then. A file that is replaced keeps its mode and its owner.
    """
    try:
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.stat() if path.exists() else None
            keys = [] if before is None else _read(path)
            yield keys
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                _write(temporary, write_keys(keys), before)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync(path.parent)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


def _write(path: Path, text: str, before: os.stat_result | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if before is not None:
            with suppress(PermissionError):  # who may write the directory need not be its owner
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), before.st_mode & 0o640)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _seconds(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} must be like 90d, 12h, 30m or 10s")
    return int(found[1]) * _UNITS[found[2]]
