# -*- test-case-name: tests.config.test_tenants -*-
"""What an operator decides about each tenant, and about all others together."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from openhqm.config.limits import TenantLimits
from openhqm.config.validators import between
from openhqm.policy.api_keys import TENANT_PATTERN, check_tenant
from openhqm.policy.fair_shares import LEAST_WEIGHT, MOST_RESERVED, Share
from openhqm.policy.permissions import OTHERS, Permission, Permissions
from openhqm.policy.places import TenantPlaces

MOST_TENANTS = 200


def name_of_a_row(instance: object, attribute: object, value: str) -> None:
    """The value names a tenant, or all that have no row."""
    if not value:
        raise ValueError(f"is missing: it says whose row this is; '{OTHERS}' is for each tenant without one")
    if value != OTHERS:
        check_tenant(value)


name_of_a_row.schema = {"pattern": f"^(?:{TENANT_PATTERN}|\\{OTHERS})$"}  # type: ignore[attr-defined]


@attrs.frozen
class Tenant:
    """The tenant ``name``; ``*``: each that has no row.

    Its requests go to ``endpoints`` alone, and name one of ``operations``. None: any. Where requests of several tenants
    wait, the workers begin them in the proportion of the weights; a part of the slots is ``reserved`` for the tenant.
    """

    name: str = attrs.field(default="", validator=name_of_a_row)
    endpoints: list[str] | None = None
    operations: list[str] | None = None
    weight: float = attrs.field(default=1.0, validator=between(LEAST_WEIGHT, 1000))
    reserved: float = attrs.field(default=0.0, validator=between(0, MOST_RESERVED))
    limits: TenantLimits = attrs.field(factory=TenantLimits)


def unique_tenants(instance: object, attribute: object, value: Sequence[Tenant]) -> None:
    """No tenant has two rows, and there are not too many."""
    names = [each.name for each in value]
    if len(names) > MOST_TENANTS:
        raise ValueError(f"must have at most {MOST_TENANTS} rows, not {len(names)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"must have one row for each tenant, not two for {twice}")
    reserved = sum(each.reserved for each in value)
    if reserved > MOST_RESERVED + 1e-9:
        raise ValueError(f"must reserve at most {MOST_RESERVED} of the slots together, not {reserved:g}")


def shares_of(tenants: Sequence[Tenant]) -> dict[str | None, Share]:
    """The share of each tenant, and with None that of all without a row together; empty: no tenant has one."""
    return {None if each.name == OTHERS else each.name: Share(each.weight, each.reserved) for each in tenants}


def queued_of(tenants: Sequence[Tenant]) -> dict[str | None, int | None]:
    """How many requests of each may wait, and with None of all without a row together; None: any number."""
    return {None if each.name == OTHERS else each.name: each.limits.queued for each in tenants}


def places_of(tenants: Sequence[Tenant]) -> TenantPlaces:
    """How many waits and streams each may have."""
    return TenantPlaces(
        {each.name: each.limits.waits for each in tenants}, {each.name: each.limits.streams for each in tenants}
    )


def permissions_of(tenants: Sequence[Tenant]) -> Permissions | None:
    """What each tenant may ask for; None: all of it."""
    if all(each.endpoints is None and each.operations is None for each in tenants):
        return None
    return Permissions({each.name: Permission(_set(each.endpoints), _set(each.operations)) for each in tenants})


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
