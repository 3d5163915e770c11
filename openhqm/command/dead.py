# -*- test-case-name: tests.command.test_dead -*-
"""``openhqm dead``: the dead letters of a process that runs, listed, shown, redriven and dropped."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import urlencode

from openhqm.command.server import Refused, Server
from openhqm.command.text import printable, printable_lines, table
from openhqm.policy.reason_classes import ReasonClass
from openhqm.runtime.times import parse_rfc3339, rfc3339

PATH = "/api/v1/dead-letters"
PORTION = 200
"""How many dead letters one answer is asked for."""
PATIENCE = 60.0
"""How long a process that cannot store anything now is asked again, in seconds."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGO = re.compile(r"(\d{1,6})([smhd])\Z")
_COLUMNS = ("number", "failed_at", "endpoint", "reason_class", "status_code", "correlation_id", "error")
Print = Callable[[str], object]


class Time(Protocol):
    """What is used of the module ``time``."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


def add_dead(commands: Any) -> None:
    """Add ``dead`` and its actions to the subcommands of a parser."""
    dead = commands.add_parser("dead", help="list, show, redrive or drop dead letters", allow_abbrev=False)
    actions = dead.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _action(actions, "list", "list dead letters, the oldest first")
    _add_filter(listing)
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many; 0: all (default: 100)")
    show = _action(actions, "show", "show dead letters with their requests and the last replies")
    show.add_argument("numbers", type=int, nargs="+", metavar="NUMBER")
    for name, summary in (
        ("redrive", "accept the requests of dead letters again, under new ids"),
        ("drop", "remove dead letters for good"),
    ):
        change = _action(actions, name, summary)
        change.add_argument("numbers", type=int, nargs="*", metavar="NUMBER", help="these; else those that match")
        _add_filter(change)
        change.add_argument("--all", action="store_true", help="all dead letters")
        change.add_argument("--dry-run", action="store_true", help="say which, and change nothing")
        if name == "redrive":
            change.add_argument("--rate", type=float, metavar="N", help="so many a second at most")


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=f"{summary}.", allow_abbrev=False
    )
    action.add_argument("--url", help="where the process listens: http://127.0.0.1:8000, or unix:/run/openhqm.sock")
    action.add_argument("-c", "--config", metavar="FILE", help="else that of the process: it says where it listens")
    action.add_argument("--json", action="store_true", help="print one JSON document a line")
    return action


def _add_filter(action: argparse.ArgumentParser) -> None:
    action.add_argument("--endpoint", metavar="NAME", help="requests for this endpoint; '': those without one")
    action.add_argument(
        "--reason-class", choices=[str(kind) for kind in ReasonClass], metavar="CLASS", help=", ".join(ReasonClass)
    )
    action.add_argument("--tenant", metavar="NAME", help="requests on behalf of this tenant; '': those without one")
    action.add_argument("--since", metavar="TIME", help="what failed since 2026-11-27T10:00:00Z, or in the last 2h")


def run_dead(asked: argparse.Namespace, server: Server, out: Print, err: Print, time: Time) -> int:
    """Carry out an action on ``server``, and return the exit code. `Refused`, `NotReached`, `ValueError`."""
    if asked.action == "list":
        return _list(asked, server, out, err, time)
    if asked.action == "show":
        return _show(asked, server, out, err)
    wanted = _filter(asked, time)
    if bool(asked.numbers) + bool(wanted) + asked.all != 1:
        raise ValueError(f"dead {asked.action} needs either numbers, or a filter, or --all")
    if getattr(asked, "rate", None) is not None and not 0.1 <= asked.rate <= 10_000:
        raise ValueError("--rate must be from 0.1 to 10000 a second")
    changed = failed = 0
    participle = {"redrive": "redriven", "drop": "dropped"}[asked.action]
    entries = _one_by_one(asked, server, time) if asked.numbers else _all_that_match(asked, server, wanted, time)
    for entry in entries:
        if "detail" in entry:
            failed += 1
            err(f"openhqm: dead letter {entry['number']} is not {participle}: {printable(entry['detail'])}")
            continue
        changed += 1
        out(json.dumps(entry) if asked.json else _line(entry))
    would = "would be" if asked.dry_run else "was" if changed == 1 else "were"
    err(f"{changed} dead letter{'' if changed == 1 else 's'} {would} {participle}")
    return 1 if failed else 0


def _list(asked: argparse.Namespace, server: Server, out: Print, err: Print, time: Time) -> int:
    wanted, cursor, left = _filter(asked, time), None, asked.limit or None
    if asked.limit < 0:
        raise ValueError("--limit must be 0 or more")
    first = True
    while True:
        query = {**wanted, "limit": min(PORTION, left or PORTION), **({"cursor": cursor} if cursor else {})}
        found = server.ask("GET", f"{PATH}?{urlencode(query)}")
        letters, cursor = found["dead_letters"], found["cursor"]
        if asked.json:
            for letter in letters:
                out(json.dumps(letter))
        elif letters:
            lines = table(_COLUMNS, [[letter.get(name) for name in _COLUMNS] for letter in letters])
            for line in lines if first else lines[1:]:
                out(line)
            first = False
        if left is not None:
            left -= len(letters)
            if left == 0 and cursor is not None:
                err(f"these are the first {asked.limit}; --limit 0 lists all")
                return 0
        if cursor is None:
            if first and not asked.json:
                err("there are no such dead letters" if wanted else "there are no dead letters")
            return 0


def _show(asked: argparse.Namespace, server: Server, out: Print, err: Print) -> int:
    code = 0
    for number in asked.numbers:
        try:
            body = server.ask_bytes("GET", f"{PATH}/{number}")
        except Refused as error:
            if error.status != 404:
                raise
            err(f"openhqm: {printable(error.detail)}")
            code = 1
            continue
        text = body.decode()
        out(text if asked.json else printable_lines(json.dumps(json.loads(text), indent=2, ensure_ascii=False)))
    return code


def _one_by_one(asked: argparse.Namespace, server: Server, time: Time) -> Iterator[dict[str, Any]]:
    for number in asked.numbers:
        path = f"{PATH}/{number}"
        try:
            entry = _found(server, number)
            if not asked.dry_run:
                if getattr(asked, "rate", None) is not None:
                    time.sleep(1 / asked.rate)
                if asked.action == "drop":
                    _ask(server, time, "DELETE", path)
                else:
                    entry["redriven_as"] = _ask(server, time, "POST", f"{path}/redrive", {})["correlation_id"]
        except Refused as error:
            if error.status not in (404, 409):
                raise
            entry = {"number": number, "detail": error.detail}
        yield entry


def _found(server: Server, number: int) -> dict[str, Any]:
    """What the list says of one, and not its bodies."""
    if number > 0:
        query = {"limit": 1, "cursor": number - 1}
        for letter in server.ask("GET", f"{PATH}?{urlencode(query)}")["dead_letters"]:
            if letter["number"] == number:
                return {name: letter[name] for name in ("number", "correlation_id", "endpoint", "reason_class")}
    raise Refused(404, "there is none with this number")


def _all_that_match(
    asked: argparse.Namespace, server: Server, wanted: dict[str, str], time: Time
) -> Iterator[dict[str, Any]]:
    """Entry by entry, in portions: the process takes a few seconds for each at most."""
    cursor: str | None = None
    while True:
        if asked.action == "redrive":
            order = {"filter": wanted, "dry_run": asked.dry_run, "limit": PORTION, "rate": asked.rate, "cursor": cursor}
            found = _ask(server, time, "POST", f"{PATH}/redrive", order)
        else:
            query: dict[str, object] = {**wanted, "dry_run": "true" if asked.dry_run else "false", "limit": PORTION}
            query.update({"all": "true"} if asked.all else {})
            query.update({"cursor": cursor} if cursor is not None else {})
            found = _ask(server, time, "DELETE", f"{PATH}?{urlencode(query)}")
        yield from found["dead_letters"]
        yield from found["refused"]
        cursor = found["cursor"]
        if cursor is None:
            return


def _ask(server: Server, time: Time, method: str, path: str, document: Any = None) -> Any:
    """The answer; asked again while the process says that it cannot store anything now, for `PATIENCE` seconds."""
    due = time.monotonic() + PATIENCE
    while True:
        try:
            return server.ask(method, path, document)
        except Refused as error:
            if error.status != 503 or error.retry_after is None or time.monotonic() + error.retry_after > due:
                raise
            time.sleep(max(error.retry_after, 1))


def _filter(asked: argparse.Namespace, time: Time) -> dict[str, str]:
    found = {"endpoint": asked.endpoint, "reason_class": asked.reason_class, "tenant": asked.tenant}
    if asked.since is not None:
        ago = _AGO.match(asked.since)
        if ago is not None:
            found["since"] = rfc3339(time.time() - int(ago[1]) * _UNITS[ago[2]])
        else:
            try:
                parse_rfc3339(asked.since)
            except ValueError as error:
                raise ValueError(f"--since {error}, or a time ago such as 90s, 30m, 2h or 7d") from None
            found["since"] = asked.since
    return {name: value for name, value in found.items() if value is not None}


def _line(entry: dict[str, Any]) -> str:
    words = [entry["number"], entry["endpoint"] or "-", entry["reason_class"], entry["correlation_id"]]
    if "redriven_as" in entry:
        words += ["->", entry["redriven_as"]]
    return " ".join(printable(str(word)) for word in words)
