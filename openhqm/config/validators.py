# -*- test-case-name: tests.config.test_config -*-
"""Validators of single settings.

A validator raises `ValueError`, whose text continues a sentence that begins with the key. Its ``schema``, where it has
one, says the same in JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import Any

from openhqm.messages import Priority
from openhqm.policy.api_keys import TENANT_PATTERN, check_tenant
from openhqm.policy.outcome import read_statuses
from openhqm.policy.schemas import PayloadSchema

Validator = Callable[[Any, Any, Any], None]


def between(least: float, most: float) -> Validator:
    """The value is a number from ``least`` to ``most``."""

    def check(instance: object, attribute: object, value: Any) -> None:
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}, not {value}")

    check.schema = {"minimum": least, "maximum": most}  # type: ignore[attr-defined]
    return check


def one_of(allowed: Collection[str]) -> Validator:
    """The value is one of ``allowed``."""

    def check(instance: object, attribute: object, value: Any) -> None:
        if value not in allowed:
            raise ValueError(f"must be {' or '.join(sorted(allowed))}, not {value!r}")

    check.schema = {"enum": sorted(allowed)}  # type: ignore[attr-defined]
    return check


def each_value(check: Validator) -> Validator:
    """Each value of a mapping is as ``check`` has it."""

    def check_all(instance: object, attribute: object, value: Any) -> None:
        for item in value.values():
            check(instance, attribute, item)

    return check_all


def payload_schema(instance: object, attribute: object, value: dict[str, Any]) -> None:
    """The value is a JSON Schema that payloads can be checked by."""
    PayloadSchema(value)


def payload_schemas(instance: object, attribute: object, value: dict[str, dict[str, Any]]) -> None:
    """Each value is one."""
    for name, schema in value.items():
        try:
            PayloadSchema(schema)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def not_empty(instance: object, attribute: object, value: Any) -> None:
    """The value is a string that is not empty."""
    if not value:
        raise ValueError("must not be empty")


ECHO = "echo"
"""In place of a path: the handler that returns the payload."""


def dotted_path(instance: object, attribute: object, value: Any) -> None:
    """The value is None, ``echo`` or like ``package.module:callable``, or a dictionary of such values."""
    for path in value.values() if isinstance(value, dict) else [value]:
        if path not in (None, ECHO) and (path.count(":") != 1 or not all(part for part in path.split(":"))):
            raise ValueError(f"must look like package.module:callable, not {path!r}")


def statuses(instance: object, attribute: object, value: list[int | str]) -> None:
    """The value is a list of status codes and ranges of them."""
    read_statuses(value)


def some_priorities(instance: object, attribute: object, value: list[str]) -> None:
    """The value names one priority or more, none of them twice."""
    names = [priority.value for priority in Priority]
    if not value or len(set(value)) < len(value) or not set(value) <= set(names):
        raise ValueError(f"must be a list of {', '.join(names)}, of one of them or more and none twice, not {value!r}")


def tenant_name(instance: object, attribute: object, value: str) -> None:
    """The value can be the name of a tenant."""
    check_tenant(value)


tenant_name.schema = {"pattern": f"^(?:{TENANT_PATTERN})$"}  # type: ignore[attr-defined]


def has_tls() -> bool:
    """Whether what TLS needs is installed."""
    return all(find_spec(package) is not None for package in ("OpenSSL", "service_identity", "treq"))


def has_jwt() -> bool:
    """Whether what JSON Web Tokens need is installed."""
    return all(find_spec(package) is not None for package in ("jwt", "cryptography"))
