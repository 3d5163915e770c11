# -*- test-case-name: tests.sqlite.test_sealing -*-
"""Where the embedded file is encrypted: the tables with values of callers, and views of them in their place.

The tables have other names, and each connection that has the keys makes views with the usual ones, which open what they
read and seal what is written. So no other statement knows of it, and without keys there is none of it. The views are
temporary: what the file says about itself is not believed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import apsw

from openhqm.errors import CannotStart
from openhqm.sqlite.sealing import Seals, read_keys
from openhqm.sqlite.sql import fetch_one

_PREFIX = "sealed_"
_META = "sealed_with"
SEALED = {
    "messages": (("key", "at", "body"), ("key",), "body"),
    "events": (("key", "number", "type", "at", "detail"), ("key", "number"), "detail"),
    "endings": (("key", "number", "expires", "reply"), ("key",), "reply"),
    "children": (
        ("parent", "place", "key", "stage", "name", "joined", "status", "reply"),
        ("parent", "place"),
        "reply",
    ),
    "dead_letters": (("number", "at", "body"), ("number",), "body"),
}
"""For each table: its columns, those of its key, and the one that is sealed."""


def seal_tables(connection: apsw.Connection) -> None:
    """Within a transaction, of an empty file: it is encrypted from now on."""
    for table in SEALED:
        connection.execute(f"ALTER TABLE {table} RENAME TO {_PREFIX}{table}")
    connection.execute("INSERT INTO meta VALUES (?, '[]')", (_META,))


def open_seals(connection: apsw.Connection, path: str, key_files: Sequence[str]) -> Seals | None:
    """The seals of the file, by the keys in ``key_files``; None: it is not encrypted.

    `CannotStart` where the file is encrypted and the keys are not all here, or it is not and there are keys.
    """
    row = fetch_one(connection, "SELECT value FROM meta WHERE name = ?", (_META,))
    if row is None and not key_files:
        return None
    if row is None:
        raise CannotStart(
            f"{path} was made without encryption: let its requests end without queue.connection.sqlite."
            "encryption_key_files and move it away, or name another queue.connection.sqlite.path"
        )
    if not key_files:
        raise CannotStart(f"{path} is encrypted: name its keys in queue.connection.sqlite.encryption_key_files")
    seals = Seals(read_keys(key_files), fetch_one(connection, "SELECT value FROM meta WHERE name = 'secret'")[0])
    used = [bytes.fromhex(id) for id in json.loads(row[0])]
    missing = [id for id in used if id not in seals.ids and _is_used(connection, id)]
    if missing:
        raise CannotStart(
            f"{path} has rows that are sealed with the key {missing[0].hex()}, and no file in queue.connection.sqlite."
            "encryption_key_files has it (their ids: " + ", ".join(id.hex() for id in seals.ids) + ")"
        )
    kept = [id.hex() for id in seals.ids if id in used or id == seals.ids[0]]
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", (json.dumps(kept), _META))
    return seals


def _is_used(connection: apsw.Connection, id: bytes) -> bool:
    return any(
        fetch_one(connection, f"SELECT 1 FROM {_PREFIX}{table} WHERE substr({sealed}, 2, {len(id)}) = ? LIMIT 1", (id,))
        for table, (_, _, sealed) in SEALED.items()
    )


def show_sealed(connection: apsw.Connection, seals: Seals, writes: bool) -> None:
    """Make the views on a connection. ``writes``: it may write, too."""
    connection.execute("PRAGMA temp_store = MEMORY")  # or what is sorted may be written to a file, opened
    functions: dict[str, Any] = {"seal": seals.seal, "unseal": seals.open}
    for name, function in functions.items():
        connection.create_scalar_function(name, function, 2)
    for table, (columns, key, sealed) in SEALED.items():
        place = _place(table, key, "")
        opened = f"unseal({place}, CAST({sealed} AS BLOB)) AS {sealed}"  # text that is none would raise an error
        shown = ", ".join(opened if each == sealed else each for each in columns)
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {shown} FROM {_PREFIX}{table}")
        if writes:
            for statement in _triggers(table, columns, key, sealed):
                connection.execute(statement)


def _triggers(table: str, columns: Collection[str], key: Collection[str], sealed: str) -> Sequence[str]:
    real = f"{_PREFIX}{table}"
    same = " AND ".join(f"{each} = OLD.{each}" for each in key)

    def new(place: str) -> Sequence[str]:
        return [f"seal({place}, NEW.{each})" if each == sealed else f"NEW.{each}" for each in columns]

    values = new(_place(table, key, "NEW."))
    insert = f"INSERT INTO {real} VALUES ({', '.join(values)})"
    if table == "dead_letters":  # its number is known once it is there
        place = _place(table, key, "")
        insert = (
            f"INSERT INTO {real} (at, body) VALUES (NEW.at, x'');"
            f" UPDATE {real} SET body = seal({place}, NEW.body) WHERE number = last_insert_rowid()"
        )
    changed = ", ".join(f"{each} = {value}" for each, value in zip(columns, values, strict=True))
    return [
        f"CREATE TEMP TRIGGER {table}_insert INSTEAD OF INSERT ON {table} BEGIN {insert}; END",
        f"CREATE TEMP TRIGGER {table}_update INSTEAD OF UPDATE ON {table}"
        f" BEGIN UPDATE {real} SET {changed} WHERE {same}; END",
        f"CREATE TEMP TRIGGER {table}_delete INSTEAD OF DELETE ON {table} BEGIN DELETE FROM {real} WHERE {same}; END",
    ]


def _place(table: str, key: Collection[str], row: str) -> str:
    """The expression for where a value stands."""
    return " || ' ' || ".join((f"'{table}'", *(f"{row}{each}" for each in key)))
