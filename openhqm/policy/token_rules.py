# -*- test-case-name: tests.policy.test_token_rules -*-
"""What an operator decides about the tokens of one issuer, and whom a token's claims stand for.

Issuer, audiences and algorithms are from the configuration, never from the token (RFC 8725, sections 3.1, 3.8, 3.9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from openhqm.policy.api_keys import Caller, Role, check_tenant
from openhqm.policy.token_text import MOST_NAME, TokenText, refuse

SHARED = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The algorithms with one secret for both sides, and the least bytes of it (RFC 7518, section 3.2)."""
SIGNING = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The algorithms with a private key, which only the issuer has."""
MOST_AUDIENCES = 64
_ROLES = {role.value: frozenset((role,)) for role in Role}


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class IssuerRules:
    """The tokens of one issuer.

    ``tenant`` is that of all its tokens; None: the claim ``tenant_claim`` says it. ``roles`` are those of all its
    tokens, beside which ``roles_claim`` may name more: by ``role_names``, or by the roles' own names where that is
    empty. A claim within another one is named with dots. ``leeway`` is in seconds.
    """

    issuer: str
    audiences: tuple[str, ...] = attrs.field(converter=_strings)
    algorithms: tuple[str, ...] = attrs.field(converter=_strings)
    tenant: str | None = None
    tenant_claim: str | None = None
    roles: frozenset[Role] = frozenset()
    roles_claim: str | None = None
    role_names: Mapping[str, frozenset[Role]] = attrs.field(factory=dict)
    leeway: float = 30.0

    def check_times(self, claims: Mapping[str, Any], now: float) -> float:
        """Until when the token is good, in seconds since 1970. Raises `TokenRefused`."""
        expires = _time(claims, "exp")
        if expires is None:
            refuse("does not expire (exp)")
        if now >= expires + self.leeway:
            refuse("has expired")
        for name in ("nbf", "iat"):
            begins = _time(claims, name)
            if begins is not None and now < begins - self.leeway:
                refuse(f"is not good yet ({name}): compare the clocks")
        return expires + self.leeway

    def check_audience(self, claims: Mapping[str, Any]) -> None:
        """The token is for this gateway. Raises `TokenRefused`."""
        found = claims.get("aud")
        named = [found] if isinstance(found, str) else found
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            refuse("names no audience (aud)")
        if len(named) > MOST_AUDIENCES or not set(named) & set(self.audiences):
            refuse("is for another audience (aud)")

    def caller(self, claims: Mapping[str, Any]) -> Caller:
        """Whom the token stands for. Raises `TokenRefused`."""
        subject = claims.get("sub")
        if subject is not None and not (isinstance(subject, str) and len(subject) <= MOST_NAME):
            refuse("has a subject (sub) that is not a short string")
        return Caller(self._tenant(claims), self.roles | self._named_roles(claims), f"jwt:{subject or ''}")

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        if self.tenant is not None:
            return self.tenant
        found = _claim(claims, self.tenant_claim or "")
        if not isinstance(found, str):
            refuse(f"names no tenant ({self.tenant_claim})")
        try:
            return check_tenant(found)
        except ValueError:
            refuse(f"names a tenant that cannot be one ({self.tenant_claim})")

    def _named_roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        """What the claim names beyond the roles known here is for other programs."""
        if self.roles_claim is None:
            return frozenset()
        found = _claim(claims, self.roles_claim)
        # RFC 8693, section 4.2: a scope is one string of words.
        named: Sequence[Any] = found.split(" ") if isinstance(found, str) else found if isinstance(found, list) else ()
        known = self.role_names or _ROLES
        return frozenset(role for name in named if isinstance(name, str) for role in known.get(name, ()))


def rules_for(token: TokenText, issuers: Mapping[str, IssuerRules]) -> IssuerRules:
    """The rules of the issuer that the token names, whose keys have to prove it. Raises `TokenRefused`."""
    issuer = token.claims.get("iss")
    rules = issuers.get(issuer) if isinstance(issuer, str) else None
    if rules is None:
        refuse("is of an issuer (iss) that is not in auth.jwt.issuers")
    if token.algorithm not in rules.algorithms:
        refuse("is signed with an algorithm that its issuer must not use (alg)")
    return rules


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """A time as whole seconds. A fraction is allowed by RFC 7519, but no issuer known to us sends one."""
    value = claims.get(name)
    if name in claims and (type(value) is not int or value < 0):
        refuse(f"has a time that is not a number of whole seconds ({name})")
    return value


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of that name, or the one that the name leads to by its dots: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
