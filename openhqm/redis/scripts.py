# -*- test-case-name: tests.redis.test_contract,tests.redis.test_recovery -*-
"""The scripts: each is one step that happens as a whole or not at all, whichever process asks for it."""

from __future__ import annotations

import re
from hashlib import sha1
from pathlib import Path

import attrs

_HERE = Path(__file__).parent
NAMES = (
    "accept",
    "accept_coalesced",
    "children_accept",
    "children_begin",
    "children_done",
    "children_take",
    "accept_many",
    "dead_letter",
    "dead_letters",
    "depth",
    "drop",
    "end",
    "extend",
    "find",
    "fresh",
    "greet",
    "history",
    "index_open",
    "ledger_begin",
    "ledger_channels",
    "ledger_count",
    "ledger_end",
    "ledger_not_published",
    "ledger_postpone",
    "ledger_published",
    "ledger_record",
    "ledger_record_coalesced",
    "ledger_record_many",
    "ledger_recover",
    "ledger_retry",
    "ledger_return",
    "ledger_take_due",
    "ledger_turn",
    "ledger_withdraw",
    "let_expire",
    "log_keep",
    "log_read",
    "oldest",
    "overdue",
    "probe",
    "progress",
    "receive",
    "repair",
    "reschedule",
    "settle",
    "settle_many",
    "taken",
    "trim",
)


# What a script uses besides the prelude. Redis runs all of its text each time, and making a function takes time, too.
_PARTS = {
    "accept": ("accepting",),
    **dict.fromkeys(("accept_coalesced", "accept_many"), ("accepting", "endings", "coalescing")),
    "depth": ("fresh",),
    "fresh": ("fresh",),
    "children_accept": ("accepting",),
    "index_open": ("accepting",),
    "ledger_published": ("outbox",),
    "ledger_record": ("outbox", "accepting"),
    **dict.fromkeys(
        ("ledger_record_coalesced", "ledger_record_many"), ("outbox", "accepting", "endings", "coalescing")
    ),
    "ledger_take_due": ("outbox",),
    **dict.fromkeys(
        (
            "children_begin",
            "dead_letter",
            "drop",
            "end",
            "ledger_end",
            "ledger_postpone",
            "ledger_recover",
            "ledger_retry",
            "ledger_return",
            "ledger_withdraw",
            "reschedule",
            "settle",
            "settle_many",
        ),
        ("endings",),
    ),
}
_VARIANT = re.compile(r"(\w+)_(?:coalesced|many)\Z")


@attrs.frozen
class Script:
    """A script and the name Redis has for it."""

    source: bytes
    digest: bytes


def _read(name: str) -> Script:
    parts = [f"part_{part}" for part in _PARTS.get(name, ())]
    found = _VARIANT.match(name)
    own = [_text(part) for part in (*parts, name if found is None else found[1])]
    if name.endswith("_many"):  # a function of the values, which stand in ARGV for one request
        own = [b"local function one(ARGV)", *own, _text("each")]
    source = b"\n".join((_text("prelude"), *own))
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode())


def _text(name: str) -> bytes:
    return (_HERE / f"{name}.lua").read_bytes()


def load_scripts() -> dict[str, Script]:
    """All of them, by name."""
    return {name: _read(name) for name in NAMES}
