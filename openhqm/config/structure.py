# -*- test-case-name: tests.config.test_config -*-
"""Makes records from plain values: with exact types, and all complaints at once, each with its key.

The hooks of cattrs convert silently (3 becomes "3"), and their errors lack keys. The hooks here take a value as it is,
or complain. Text from the environment is converted to the type of its key.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import types
import typing
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import cattrs

from openhqm.runtime.private_files import check_private

Path_ = tuple[str, ...]
_VALUE = re.compile(r"^(must be .*?), not .*", re.DOTALL)


class Wrong(Exception):
    """All complaints about one value: pairs of a path below it and a reason."""

    def __init__(self, found: list[tuple[Path_, str]]) -> None:
        super().__init__(found)
        self.found = found


SECRET = {"secret": True}
"""Metadata of a field that may hold a secret: complaints do not contain its value, nor those of its entries."""

PRIVATE = {"private": True}
"""Metadata of a field that names a file with a secret, which a library reads (`openhqm.config.private`)."""


@attrs.frozen
class Tagged:
    """One of several records: the key ``type`` of a mapping says which, and its other keys are those of the record.

    A class made by `tagged` knows the records.
    """

    type: str
    record: Any = attrs.field(repr=False)


def tagged(base: type[Tagged], records: Mapping[str, type[Any]]) -> type[Tagged]:
    """A subclass of ``base`` that reads the ``records``, by what ``type`` says."""
    made = type(base.__name__, (base,), {"__slots__": ()})
    _records[made] = records
    return made


_records: dict[type[Any], Mapping[str, type[Any]]] = {}


def records_of(kind: type[Tagged]) -> Mapping[str, type[Any]]:
    """The records that a class made by `tagged` reads, by what ``type`` says."""
    return _records[kind]


class Text(str):
    """A string from the environment or from a ``${VARIABLE}``: its type is that of its key."""


class Variable(Text):
    """A string from a variable of ours, which stands above the file."""


def structure(value: Any, record: type[Any]) -> Any:
    """An instance of the attrs class ``record``. Raises `Wrong` with all complaints."""
    return _converter.structure(value, record)


def _wrong(reason: str) -> Wrong:
    return Wrong([((), reason)])


def _shown(value: Any) -> str:
    """A single value; of what has several only the kind, because one of them may be a secret."""
    if isinstance(value, Mapping | list):
        return _described(value)
    return repr(str(value) if isinstance(value, Text) else value)


def _described(value: Any) -> str:
    """What a value is that is not shown: it stands where there should be several, and may be a secret."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else "a single value"


def _bool(value: Any, _: Any) -> bool:
    if isinstance(value, Text) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise _wrong(f"must be true or false, not {_shown(value)}")


def _int(value: Any, _: Any) -> int:
    if isinstance(value, Text):
        try:
            return int(value)
        except ValueError:
            pass  # reported below, like every other wrong type
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _wrong(f"must be a whole number, not {_shown(value)}")


def _float(value: Any, _: Any) -> float:
    if isinstance(value, Text):
        try:
            return float(value)
        except ValueError:
            pass  # reported below, like every other wrong type
    elif isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    raise _wrong(f"must be a number, not {_shown(value)}")


def _str(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise _wrong(f"must be a string, not {_shown(value)}")


def _optional(value: Any, kind: Any) -> Any:
    if value is None or (isinstance(value, Text) and value in ("", "null")):
        return None
    kinds = [part for part in typing.get_args(kind) if part is not types.NoneType]
    records = [part for part in kinds if attrs.has(part)]
    if records and not isinstance(value, str):
        return _converter.structure(value, records[0])
    return _converter.structure(value, kinds[0]) if len(kinds) == 1 else _scalar(value, kinds)


def _scalar(value: Any, kinds: list[type]) -> Any:
    """A value of one of ``kinds``. Text from a variable is a string."""
    if isinstance(value, Text):
        value = str(value)
    if type(value) not in kinds:
        raise _wrong(f"must be a string, a number, true or false, not {_shown(value)}")
    return value


def _plain(value: Any, _: Any) -> Any:
    """A value of any kind, which its user checks; text becomes a string."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, Any) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, Any) for item in value]
    return str(value) if isinstance(value, Text) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, Text):
        try:
            return json.loads(value)
        except ValueError as error:
            where = f": {error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise _wrong(f"must be JSON{where}") from None
        except RecursionError:
            raise _wrong("must be JSON that is not nested without end") from None
    return value


def _list(value: Any, kind: Any) -> list[Any]:
    value = _from_json(value)
    if not isinstance(value, list):
        raise _wrong(f"must be a list, not {_described(value)}")
    (inner,) = typing.get_args(kind)
    return _each([(str(index), item, inner) for index, item in enumerate(value)])


def _dict(value: Any, kind: Any) -> dict[str, Any]:
    value = _from_json(value)
    if not isinstance(value, Mapping):
        raise _wrong(f"must be a mapping, not {_described(value)}")
    _, inner = typing.get_args(kind)
    return dict(zip(value, _each([(str(key), item, inner) for key, item in value.items()]), strict=True))


def _each(entries: list[tuple[str, Any, Any]]) -> list[Any]:
    found: list[tuple[Path_, str]] = []
    values = []
    for key, item, kind in entries:
        try:
            values.append(_converter.structure(item, kind))
        except Wrong as wrong:
            found += [((key, *path), reason) for path, reason in wrong.found]
    if found:
        raise Wrong(found)
    return values


def _record(value: Any, kind: Any) -> Any:
    value = _from_json({} if value is None else value)
    if not isinstance(value, Mapping):
        raise _wrong(f"must be a mapping, not {_described(value)}")
    # A key that is a word of Python's has an underscore in the record.
    fields = {field.name.rstrip("_"): field for field in attrs.fields(kind)}
    hints = typing.get_type_hints(kind)
    found: list[tuple[Path_, str]] = []
    values: dict[str, Any] = {}
    for key, item in value.items():
        name = str(key)
        try:
            if _is_overridden(name, item, value, fields):
                continue
            if name.endswith("_file") and name not in fields and name[:-5] in fields:
                name = name[:-5]
                item = _from_file(item, _is_secret(fields[name]))
            if name not in fields:
                raise _wrong(_unknown(name, list(fields)))
            field = fields[name]
            values[field.alias] = _converter.structure(item, hints[field.name])
            if field.validator is not None:
                field.validator(None, field, values[field.alias])
        except Wrong as wrong:
            hidden = name in fields and fields[name].metadata.get("secret", False)
            found += [
                ((str(key), *path), _without_value(reason) if hidden and len(path) < 2 else reason)
                for path, reason in wrong.found
            ]
        except ValueError as error:
            found.append(((name,), str(error)))
    if found:
        raise Wrong(found)
    return kind(**values)


def _is_overridden(name: str, item: Any, value: Mapping[str, Any], fields: Collection[str]) -> bool:
    """Whether a variable says the same key: ``key`` in place of ``key_file``, whose file is not read then, or the
    other way round. Where both are from one place, neither counts: raises `Wrong`.
    """
    plain = name.removesuffix("_file")
    twin = f"{name}_file" if plain == name else plain
    if twin not in value or plain not in fields or f"{plain}_file" in fields:
        return False
    ours, other = isinstance(item, Variable), isinstance(value[twin], Variable)
    if ours == other and plain != name:
        raise _wrong(f"says the same as {plain}: leave one of them out")
    return other and not ours


def _tagged(value: Any, kind: Any) -> Tagged:
    value = _from_json(value)
    if not isinstance(value, Mapping):
        raise _wrong(f"must be a mapping, not {_described(value)}")
    records, name = _records[kind], value.get("type")
    if name not in records:
        raise Wrong([(("type",), f"must be {' or '.join(records)}, not {_shown(name)}")])
    rest = {key: item for key, item in value.items() if key != "type"}
    made: Tagged = kind(str(name), _record(rest, records[str(name)]))
    return made


def _from_file(path: Any, is_secret: bool) -> Text:
    try:
        with Path(_str(path, str)).open(encoding="utf-8") as file:
            if is_secret:
                check_private(path, os.fstat(file.fileno()).st_mode)
            return Text(file.read().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"cannot read {path}: {error}") from None
    except ValueError as error:
        raise _wrong(f"{path} {error}") from None


def _is_secret(field: Any) -> bool:
    """Whether others must not know it. The URL of a broker may have a password."""
    return field.repr is not True or field.metadata.get("secret", False) or field.name.endswith("url")


def _without_value(reason: str) -> str:
    """A complaint about a type, without the value."""
    return _VALUE.sub(r"\1", reason)


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return "unknown key" + (f", did you mean {close[0]}?" if close else f" (known here: {', '.join(sorted(known))})")


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind)


def _is_union(kind: Any) -> bool:
    return _origin(kind) in (typing.Union, types.UnionType)


_converter = cattrs.Converter(detailed_validation=False)
for _kind, _hook in ((bool, _bool), (int, _int), (float, _float), (str, _str)):
    _converter.register_structure_hook(_kind, _hook)
_converter.register_structure_hook_func(lambda kind: _origin(kind) is list, _list)
_converter.register_structure_hook_func(lambda kind: _origin(kind) is dict, _dict)
_converter.register_structure_hook_func(_is_union, _optional)
_converter.register_structure_hook_func(lambda kind: kind is Any, _plain)
_converter.register_structure_hook_func(attrs.has, _record)
_converter.register_structure_hook_func(lambda kind: kind in _records, _tagged)
