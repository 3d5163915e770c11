# -*- test-case-name: tests.config.test_auth -*-
"""What an operator decides about who may: the issuers of tokens, and the certificates of clients."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
from attrs.validators import optional

from openhqm.config.structure import Wrong
from openhqm.config.validators import between, not_empty, tenant_name
from openhqm.errors import DestinationRefused
from openhqm.policy.api_keys import Role, check_tenant
from openhqm.policy.destinations import DestinationPolicy
from openhqm.policy.host_lists import parse_host_list
from openhqm.policy.token_rules import SHARED, SIGNING, IssuerRules

ROLES = tuple(role.value for role in Role)
_HTTPS = re.compile(r"https://.+")
_PORT = re.compile(r"https://[^/?]*:(\d{1,5})(?:[/?]|\Z)")


def _roles(instance: object, attribute: object, value: list[str]) -> None:
    for each in value:
        if each not in ROLES:
            raise ValueError(f"must be a list of {', '.join(ROLES)}, not {each!r}")


def _roles_by_name(instance: object, attribute: object, value: Mapping[str, list[str]]) -> None:
    for roles in value.values():
        _roles(instance, attribute, roles)


def _algorithms(instance: object, attribute: object, value: list[str]) -> None:
    for each in value:
        if each.lower() == "none":
            raise ValueError("must not have none, by which everybody writes tokens: leave it out")
        if each not in SIGNING and each not in SHARED:
            raise ValueError(f"must be a list of {', '.join((*SIGNING, *SHARED))}, not {each!r}")
    if any(each in SHARED for each in value) and not all(each in SHARED for each in value):
        raise ValueError(
            "must not have HS256 and its like beside others, because a public key would be a secret for it: "
            "configure two issuers"
        )


def _hosts(instance: object, attribute: object, value: list[str]) -> None:
    parse_host_list(value)


def key_set_policy(url: str, allow: list[str]) -> DestinationPolicy:
    """Where the JWK set at ``url`` may be fetched from: its own port, public addresses, and what ``allow`` has."""
    port = _PORT.match(url)
    return DestinationPolicy(ports=(int(port[1]) if port else 443,), allow=tuple(allow))


@attrs.frozen
class TokenIssuer:
    """An issuer of JSON Web Tokens, and whom its tokens stand for (`openhqm.policy.token_rules.IssuerRules`).

    Its keys are in ``key_files``, at ``jwks_url``, or, for ``HS256`` and its like, the secret in ``secret_file``.
    ``ca`` is a file of CAs for ``jwks_url``; None: those of the machine.
    """

    issuer: str = ""
    audiences: list[str] = attrs.field(factory=list)
    algorithms: list[str] = attrs.field(factory=lambda: ["RS256"], validator=_algorithms)
    jwks_url: str | None = attrs.field(default=None, validator=optional(not_empty))
    ca: str | None = attrs.field(default=None, validator=optional(not_empty))
    key_files: list[str] = attrs.field(factory=list)
    secret_file: str | None = attrs.field(default=None, validator=optional(not_empty))
    tenant: str | None = attrs.field(default=None, validator=optional(tenant_name))
    tenant_claim: str | None = attrs.field(default=None, validator=optional(not_empty))
    roles: list[str] = attrs.field(factory=list, validator=_roles)
    roles_claim: str | None = attrs.field(default=None, validator=optional(not_empty))
    role_names: dict[str, list[str]] = attrs.field(factory=dict, validator=_roles_by_name)
    leeway_seconds: float = attrs.field(default=30.0, validator=between(0, 60))

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found = [*self._missing(), *self._about_keys(), *self._about_callers()]
        if found:
            raise Wrong([((key,), reason) for key, reason in found])

    @property
    def shared(self) -> bool:
        """Whether both sides have one secret."""
        return any(each in SHARED for each in self.algorithms)

    def rules(self) -> IssuerRules:
        """The rules that these settings describe."""
        return IssuerRules(
            issuer=self.issuer,
            audiences=self.audiences,
            algorithms=self.algorithms,
            tenant=self.tenant,
            tenant_claim=self.tenant_claim,
            roles=_role_set(self.roles),
            roles_claim=self.roles_claim,
            role_names={name: _role_set(roles) for name, roles in self.role_names.items()},
            leeway=self.leeway_seconds,
        )

    def _missing(self) -> list[tuple[str, str]]:
        found = []
        if not self.issuer:
            found.append(("issuer", "is missing: the iss of its tokens, as it stands there"))
        if not self.audiences or not all(self.audiences):
            found.append(("audiences", "is missing: without it, a token for another service would be good here"))
        if not self.algorithms:
            found.append(("algorithms", "must not be empty: [RS256] is what most issuers use"))
        return found

    def _about_keys(self) -> list[tuple[str, str]]:
        if self.shared:
            found = [
                (key, "is a public key beside HS256 and its like, by which everybody could sign: name a secret_file")
                for key in ("key_files", "jwks_url")
                if getattr(self, key)
            ]
            if self.secret_file is None:
                found.append(("secret_file", "is missing: HS256 and its like need one"))
            return found
        found = []
        if self.secret_file is not None:
            found.append(("secret_file", f"has no effect with algorithms {', '.join(self.algorithms)}"))
        if bool(self.key_files) == (self.jwks_url is not None):
            found.append(("jwks_url", "or key_files has to say where the keys of the issuer are, and not both"))
        if self.ca is not None and self.jwks_url is None:
            found.append(("ca", "has no effect without jwks_url"))
        if self.jwks_url is not None and _HTTPS.fullmatch(self.jwks_url) is None:
            found.append(("jwks_url", "must begin with https://: who can change the keys on their way can sign tokens"))
        return found

    def _about_callers(self) -> list[tuple[str, str]]:
        found = []
        if (self.tenant is None) == (self.tenant_claim is None):
            found.append(("tenant", "or tenant_claim has to say whom tokens are from, and not both"))
        if not self.roles and self.roles_claim is None:
            found.append(("roles", f"or roles_claim is missing: what its tokens may do ({', '.join(ROLES)})"))
        if self.role_names and self.roles_claim is None:
            found.append(("role_names", "has no effect without roles_claim"))
        return found


@attrs.frozen
class JWT:
    """Tokens. ``allow`` has the hosts and networks that are not public and may be asked for JWK sets."""

    issuers: list[TokenIssuer] = attrs.field(factory=list)
    allow: list[str] = attrs.field(factory=list, validator=_hosts)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found: list[tuple[tuple[str, ...], str]] = []
        names = [each.issuer for each in self.issuers]
        for index, each in enumerate(self.issuers):
            if each.issuer in names[:index]:
                found.append((("issuers", str(index), "issuer"), "is there twice"))
            if each.jwks_url is not None and _HTTPS.fullmatch(each.jwks_url):
                try:
                    key_set_policy(each.jwks_url, self.allow).check(each.jwks_url)
                except DestinationRefused as refused:
                    reason = f"{refused.reason}: a host that is not public has to be in auth.jwt.allow"
                    found.append((("issuers", str(index), "jwks_url"), reason))
                except ValueError as error:
                    found.append((("issuers", str(index), "jwks_url"), str(error)))
        if self.allow and not any(each.jwks_url for each in self.issuers):
            found.append((("allow",), "has no effect without jwks_url"))
        if found:
            raise Wrong(found)


def _version(instance: object, attribute: object, value: str | float) -> None:
    if str(value) not in ("1.2", "1.3"):
        raise ValueError(f"must be 1.2 or 1.3, not {value}")


@attrs.frozen
class ServerTLSFiles:
    """TLS of the door: PEM files, which are read again when they change. ``cert`` None: there is no TLS.

    ``client_ca`` has the CAs whose client certificates are taken. None: clients are not asked for one. ``client_crl``
    has the lists of those that were revoked; None: that is not looked at.
    ``hsts_seconds``: for how long a browser is to call this host by https only (RFC 6797). None: it is not told.
    """

    cert: str | None = attrs.field(default=None, validator=optional(not_empty))
    key: str | None = attrs.field(default=None, validator=optional(not_empty))
    client_ca: str | None = attrs.field(default=None, validator=optional(not_empty))
    client_crl: str | None = attrs.field(default=None, validator=optional(not_empty))
    minimum_version: str | float = attrs.field(default="1.2", validator=_version)
    hsts_seconds: int | None = attrs.field(default=None, validator=optional(between(0, 10 * 365 * 86400)))

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        if self.cert is None:
            names = ("key", "client_ca", "client_crl", "hsts_seconds")
            found = [name for name in names if getattr(self, name) is not None]
            if found:
                raise Wrong([(("cert",), f"is missing: {found[0]} needs it")])
        elif self.key is None:
            raise Wrong([(("key",), "is missing: the file with the key of cert")])
        elif self.client_crl is not None and self.client_ca is None:
            raise Wrong([(("client_crl",), "has no effect without client_ca")])


_ALTERNATIVE = re.compile(r"(?:DNS|URI|email|IP):.+")


@attrs.frozen
class CertifiedClient:
    """Whom a client certificate stands for that has this name: ``san``, or the whole ``subject``."""

    san: str | None = None
    subject: str | None = attrs.field(default=None, validator=optional(not_empty))
    tenant: str = ""
    roles: list[str] = attrs.field(factory=list, validator=_roles)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found = []
        if (self.san is None) == (self.subject is None):
            found.append(("san", "or subject has to say which certificate it is, and not both"))
        elif self.san is not None and _ALTERNATIVE.fullmatch(self.san) is None:
            found.append(
                ("san", f"must be as DNS:billing.internal, URI:spiffe://acme/billing, email: or IP:, not {self.san!r}")
            )
        try:
            check_tenant(self.tenant)
        except ValueError as error:
            found.append(("tenant", f"is missing, or cannot be one: {error}"))
        if not self.roles:
            found.append(("roles", f"is missing: what the client may do ({', '.join(ROLES)})"))
        if found:
            raise Wrong([((key,), reason) for key, reason in found])

    @property
    def name(self) -> str:
        """What the certificate has to have."""
        return self.san or f"subject:{self.subject}"

    @property
    def role_set(self) -> frozenset[Role]:
        """Its roles."""
        return _role_set(self.roles)


_A_MINUTE: int | None = 60


@attrs.frozen
class WrongLogins:
    """How many wrong credentials and signatures of webhooks an address may send; ``requests`` None: any number."""

    requests: int | None = attrs.field(default=_A_MINUTE, validator=optional(between(1, 1_000_000)))
    per_seconds: float = attrs.field(default=60.0, validator=between(1, 86400))


@attrs.frozen
class MTLS:
    """The client certificates that are known by name."""

    clients: list[CertifiedClient] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        names = [each.name for each in self.clients]
        found = [index for index, name in enumerate(names) if name in names[:index]]
        if found:
            raise Wrong([(("clients", str(index)), "has the name of one before it") for index in found])


def _role_set(names: list[str]) -> frozenset[Role]:
    return frozenset(Role(name) for name in names)
