# -*- test-case-name: tests.config.test_tenants -*-
"""What does not go together about tenants."""

from __future__ import annotations

from collections.abc import Iterator

from openhqm.config.model import Settings
from openhqm.config.products import Kind, Products
from openhqm.policy.permissions import OTHERS


def about_tenants(settings: Settings, products: Products) -> Iterator[tuple[str, str]]:
    """Each key about tenants with what is wrong with it beside the others."""
    rows = settings.tenants
    if not rows:
        return
    for index, row in enumerate(rows):
        for number, endpoint in enumerate(row.endpoints or ()):
            if endpoint not in settings.proxy.names:
                yield f"tenants.{index}.endpoints.{number}", f"there is no endpoint {endpoint!r}"
    named = dict(_named(settings))
    names = {row.name for row in rows}
    if OTHERS not in names:
        for key, name in named.items():
            if name not in names:
                reason = f"tenants has no row for {name}: correct the name, add the row, or one named '{OTHERS}'"
                yield key, reason
    if products[settings.queue.type].kind is not Kind.BACKEND:
        for index, row in enumerate(rows):
            if row.limits.queued is not None:
                reason = f"cannot be kept: {settings.queue.type} does not tell whose requests wait in it"
                yield f"tenants.{index}.limits.queued", f"{reason}; leave it out, and limit requests_per_second"
    if settings.auth.type in (None, "none") and not named:
        reason = "has no effect, because callers need no key, so that their requests have no tenant"
        yield "tenants", f"{reason}: set auth.type, or leave it out"


def _named(settings: Settings) -> Iterator[tuple[str, str]]:
    """The keys that name a tenant, each with that."""
    for name, hook in settings.hooks.items():
        if hook.tenant is not None:
            yield f"hooks.{name}.tenant", hook.tenant
    for index, bridge in enumerate(settings.bridges):
        if bridge.tenant is not None:
            yield f"bridges.{index}.tenant", bridge.tenant
    for index, issuer in enumerate(settings.auth.jwt.issuers):
        if issuer.tenant is not None:
            yield f"auth.jwt.issuers.{index}.tenant", issuer.tenant
    for index, client in enumerate(settings.auth.mtls.clients):
        yield f"auth.mtls.clients.{index}.tenant", client.tenant
