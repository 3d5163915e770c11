# -*- test-case-name: tests.config.test_config -*-
"""A YAML file and the environment become `Settings`, or every complaint at once."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from twisted.logger import Logger

from openhqm.config.absent import take_out
from openhqm.config.contradictions import contradictions
from openhqm.config.model import Settings
from openhqm.config.private import exposed
from openhqm.config.products import Products
from openhqm.config.records import settings_record
from openhqm.config.short_forms import settle_short_forms
from openhqm.config.structure import Text, Variable, Wrong, structure
from openhqm.config.unused import unused
from openhqm.errors import Complaint, ConfigurationError

PREFIX = "OPENHQM_"
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# What Kubernetes tells every pod of a service named openhqm, openhqm-cache and so on is not meant as configuration.
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_SERVICE_LINK = re.compile(
    r"OPENHQM_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z"
)
_LINKED_PORT = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_CURES = (
    ("duplicate key", "write each section and each key once"),
    ("undefined alias", "put a value that begins with * in quotes"),
    ("for the tag", "put a value that begins with ! in quotes"),
    ("unhashable", "put a value that begins with { in quotes, as in '{{ payload.id }}'"),
    ("mapping values are not allowed", "check the indentation, and put a value that contains ': ' in quotes"),
    ("cannot start any token", "indent with spaces, and put a value that begins with @, ` or % in quotes"),
    ("block end", "begin all keys of one section in the same column"),
    ("expected ',' or", "put a value that begins with { or [ in quotes"),
)
# What the parser quotes of the file, except keys: a password that begins with * is an alias for it, one with ! a tag.
_QUOTED = re.compile(r" with value .*|(?<=alias) .*|(?<=anchor) .*|(?<=tag) .*", re.DOTALL)
_log = Logger()
MOST_BYTES = 1024 * 1024


def load(
    path: str | None,
    environment: Mapping[str, str],
    products: Products,
    text: bytes | None = None,
    *,
    has_door: bool = True,
) -> Settings:
    """The settings in the file at ``path`` (None: no file) and in ``OPENHQM_*`` variables, which win.

    ``products`` are those that the queue can be in. ``text`` is what the file holds, where that was read before.
    ``has_door``: false where the process will not listen for callers, whatever the settings say of that.
    `ConfigurationError` carries every complaint, each with the key and where it came from.
    """
    complaints: list[Complaint] = []
    document: dict[str, Any] = {}
    links = service_links(environment)
    if links:
        _log.debug("variables of Kubernetes services are no configuration: {names}", names=", ".join(links))
        environment = {name: value for name, value in environment.items() if name not in links}
    if path is not None:
        document = _parse(path, read_text(path) if text is None else text)
        try:
            document = _replace(document, (), environment, complaints, path)
        except RecursionError:
            raise ConfigurationError([Complaint(path, "refers to itself, or nests without end")]) from None
    variables = _overlay(document, environment)

    def complain(key: tuple[str, ...], reason: str) -> None:
        source = next((name for known, name in variables.items() if _concerns(known, key)), path or "")
        complaints.append(Complaint(".".join(key), reason, source))

    for key, reason in [*take_out(document, products, variables), *settle_short_forms(document, products, variables)]:
        complain(tuple(key.split(".")), reason)
    try:
        settings: Settings = structure(document, settings_record(products))
    except Wrong as wrong:
        for key_path, reason in wrong.found:
            complain(key_path, reason)
    else:
        for key, reason in [
            *contradictions(settings, products, has_door),
            *unused(settings, products, document, variables),
            *exposed(settings),
        ]:
            complain(tuple(key.split(".")), reason)
    if complaints:
        raise ConfigurationError(complaints)
    return settings


def configures(environment: Mapping[str, str]) -> bool:
    """Whether any variable sets a key."""
    links = service_links(environment)
    return any(name.startswith(PREFIX) and value and name not in links for name, value in environment.items())


def service_links(environment: Mapping[str, str]) -> list[str]:
    """The names of the variables that Kubernetes has made for services whose names begin like our keys."""
    return [name for name in sorted(environment) if _is_service_link(name, environment[name])]


def read_text(path: str) -> bytes:
    """What the file at ``path`` holds. `ConfigurationError` where it cannot be read, or is too large to be one."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError([Complaint(path, f"cannot be read: {error.strerror}")]) from None
    if len(text) > MOST_BYTES:
        raise ConfigurationError([Complaint(path, f"larger than {MOST_BYTES} bytes")])
    return text


def _parse(path: str, text: bytes) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote what begins with &
            document = YAML(typ="safe", pure=True).load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError([Complaint(path, f"is not UTF-8: {error}")]) from None
    except YAMLError as error:
        raise ConfigurationError([Complaint(path, f"is not YAML: {_one_line(error)}")]) from None
    except (ValueError, OverflowError, RecursionError) as error:  # a date or a number that cannot be one
        raise ConfigurationError([Complaint(path, f"is not YAML: {error}")]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError([Complaint(path, "must be a mapping of sections")])
    return document


def _one_line(error: YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    cure = next((f": {cure}" for sign, cure in _CURES if sign in str(problem)), "")
    return f"{_QUOTED.sub('', str(problem))}{where}{cure}"


def _replace(
    value: Any, key: tuple[str, ...], environment: Mapping[str, str], complaints: list[Complaint], source: str
) -> Any:
    """``${VARIABLE}`` and ``${VARIABLE:-default}`` in every string of the file. ``$${`` stands for ``${``."""
    if isinstance(value, dict):
        for name in [name for name in value if not isinstance(name, str)]:
            reason = f"YAML reads this key as a {_kind(name)}: put it in quotes"
            complaints.append(Complaint(".".join((*key, str(name))), reason, source))
            del value[name]
        return {
            name: _replace(item, (*key, str(name)), environment, complaints, source) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_replace(item, (*key, str(index)), environment, complaints, source) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def variable(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped is not None:
            return str(escaped)
        found = environment.get(name)
        if not found and default is not None:  # as in a shell, for which an empty variable has no value either
            return str(default)
        if found is None:
            complaints.append(Complaint(".".join(key), f"the environment has no {name}", source))
            return ""
        return found

    return Text(_VARIABLE.sub(variable, value))


def _overlay(document: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Put ``OPENHQM_A__B`` into the document as ``a.b``; which key came from which variable."""
    variables = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or not environment[name]:
            continue  # an empty variable is as if it were not set: so they are taken back where they cannot be unset
        key = tuple(part.lower() for part in name[len(PREFIX) :].split("__"))
        variables[key] = name
        holder: Any = document
        for part in key[:-1]:
            inner = holder.get(part)
            if inner is None or isinstance(inner, Text):
                inner = holder[part] = _mapping(inner)
            if not isinstance(inner, dict):
                break  # something else stands there: it is complained of where it is read
            holder = inner
        else:
            value = Variable(environment[name])
            holder[key[-1]] = _mapping(value) if len(key) == 1 else value
    return variables


def _kind(key: object) -> str:
    kinds = {bool: "truth value", int: "number", float: "number", type(None): "null", tuple: "list"}
    return kinds.get(type(key), "date" if isinstance(key, date) else "mapping")


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes made this variable: by its form, for what looks like one of our keys may be a mistake."""
    if "__" in name or not name.startswith(PREFIX):
        return False
    return _SERVICE_LINK.match(name) is not None or (name.endswith("PORT") and _LINKED_PORT.match(value) is not None)


def _mapping(text: Text | None) -> Any:
    """A section given as JSON, so that single keys can be put into it; what is none stays as it is."""
    with suppress(ValueError):
        value = {} if text is None else json.loads(text)
        if isinstance(value, dict):
            return value
    return text


def _concerns(known: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """Whether a complaint about ``key`` is about what a variable for ``known`` said."""
    plain = (*known[:-1], known[-1].removesuffix("_file"))
    return key[: len(known)] in (known, plain) or known[: len(key)] == key
