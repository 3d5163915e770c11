# -*- test-case-name: tests.policy.test_permissions -*-
"""What each tenant may ask for: the endpoints and the operations of its requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from openhqm.errors import NotPermitted

OTHERS = "*"
"""In place of a name: each tenant that is not named."""


@attrs.frozen
class Permission:
    """Requests may go to ``endpoints``, and have one of ``operations``. None: any, also none.

    What a Python handler answers goes to no endpoint, and ``endpoints`` does not keep it out.
    """

    endpoints: Collection[str] | None = None
    operations: Collection[str] | None = None

    def check(self, endpoint: str | None, operation: str | None) -> None:
        """`NotPermitted` where a request to ``endpoint`` with ``operation`` is not allowed."""
        if self.endpoints is not None and endpoint is not None and endpoint not in self.endpoints:
            raise NotPermitted("metadata.endpoint", "this tenant may not use this endpoint")
        if self.operations is not None and operation not in self.operations:
            raise NotPermitted("metadata.operation", "this tenant may not use this operation")


@attrs.frozen
class Permissions:
    """The permissions by tenant; `OTHERS`: of each other one. A request without a tenant may go anywhere."""

    by_tenant: Mapping[str, Permission]

    def of(self, tenant: str | None) -> Permission | None:
        """What requests on behalf of ``tenant`` may ask for; None: anything."""
        if tenant is None:
            return None
        return self.by_tenant.get(tenant) or self.by_tenant.get(OTHERS)
