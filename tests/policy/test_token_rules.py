"""Whom claims stand for."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.api_keys import Role
from openhqm.policy.token_rules import IssuerRules

RULES = IssuerRules(issuer="i", audiences=["a"], algorithms=["RS256"], tenant="shop", roles=frozenset({Role.READ}))


class CallerTests(SynchronousTestCase):
    """`IssuerRules.caller`"""

    def test_fixed(self) -> None:
        """Where the configuration has tenant and roles, the claims say neither."""
        caller = RULES.caller({"tenant": "other", "scope": "admin", "sub": "ada"})
        self.assertEqual((caller.tenant, caller.roles, caller.key_id), ("shop", {Role.READ}, "jwt:ada"))

    def test_names_of_roles(self) -> None:
        """With names of roles, only those count: a claim that says admin does not make an operator."""
        rules = attrs.evolve(
            RULES, roles_claim="realm_access.roles", role_names={"orders:write": frozenset({Role.SUBMIT, Role.CANCEL})}
        )
        for found, roles in (
            (["orders:write"], {Role.READ, Role.SUBMIT, Role.CANCEL}),
            ("x orders:write", {Role.READ, Role.SUBMIT, Role.CANCEL}),
            (["admin"], {Role.READ}),
            ("admin", {Role.READ}),
            ({"admin": 1}, {Role.READ}),
            (None, {Role.READ}),
        ):
            self.assertEqual(rules.caller({"realm_access": {"roles": found}}).roles, roles)
        self.assertEqual(rules.caller({"realm_access": []}).roles, {Role.READ})

    def test_exact_name_first(self) -> None:
        """A claim whose own name has dots is found by that (RFC 7519, section 4.2: names may be URIs)."""
        rules = attrs.evolve(RULES, tenant=None, tenant_claim="https://example.com/tenant")
        self.assertEqual(rules.caller({"https://example.com/tenant": "shop"}).tenant, "shop")
