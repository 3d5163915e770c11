# -*- test-case-name: tests.config.test_private -*-
"""The files with keys that settings name, and that a library reads: others must not be able to read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import attrs

from openhqm.config.structure import Tagged
from openhqm.runtime.private_files import check_private


def exposed(settings: Any) -> Iterator[tuple[str, str]]:
    """Each key that names such a file, with what is wrong with it. One that is missing is missed where it is read."""
    for key, path in private_files(settings):
        try:
            check_private(path, os.stat(path).st_mode)
        except OSError:
            continue
        except ValueError as error:
            yield key, f"{path} {error}"


def private_files(record: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """The key of each setting below ``record`` whose field is `PRIVATE`, and the path that it has."""
    if isinstance(record, Tagged):
        record = record.record
    if attrs.has(type(record)):
        for field in attrs.fields(type(record)):
            value, key = getattr(record, field.name), f"{above}{field.name.rstrip('_')}"
            if field.metadata.get("private"):
                if value is not None:
                    yield key, value
                elif getattr(record, "cert", None):  # the key is in the file of its certificate
                    yield f"{above}cert", record.cert
            else:
                yield from private_files(value, f"{key}.")
    elif isinstance(record, dict):
        for name, value in record.items():
            yield from private_files(value, f"{above}{name}.")
    elif isinstance(record, list | tuple):
        for index, value in enumerate(record):
            yield from private_files(value, f"{above}{index}.")
