# -*- test-case-name: tests.ingress.test_authentication -*-
"""Makes what `Auth` asks for: the ways in which a caller may prove who it is, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import time
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from openhqm.config.auth import JWT, MTLS, TokenIssuer, key_set_policy
from openhqm.config.model import Settings
from openhqm.errors import Complaint, ConfigurationError
from openhqm.http1.guarded import guarded_client
from openhqm.ingress.access import Access
from openhqm.ingress.certificates import Certificates
from openhqm.ingress.key_file import KeyFile
from openhqm.ingress.key_sets import FetchedKeys, FixedKeys
from openhqm.ingress.key_use import KeyUse
from openhqm.ingress.tokens import Issuer, Tokens
from openhqm.ingress.wrong_logins import WrongLogins, make_wrong_logins
from openhqm.policy.api_keys import PREFIX, Caller
from openhqm.policy.certificate_names import same_name
from openhqm.policy.token_keys import TokenKey, read_key_file, shared_key
from openhqm.runtime.private_files import read_private

MOST_BYTES = 1024 * 1024
_PREFIX = PREFIX.encode()


class Authentication:
    """API keys, tokens and certificates, as far as there are any: the form of a credential says which one it is."""

    def __init__(
        self,
        keys: KeyFile | None,
        tokens: Tokens | None,
        certificates: Certificates | None,
        clock: IReactorTime,
        wrong: WrongLogins | None = None,
        use: KeyUse | None = None,
    ) -> None:
        self._use = use
        self._clock = clock
        self.wrong = wrong
        self._keys = keys
        self._tokens = tokens
        self._certificates = certificates

    @property
    def access(self) -> Access | None:
        """The table of routes, with this; None: everybody may."""
        ways = self._keys, self._tokens, self._certificates
        return None if ways == (None, None, None) else Access(self, self._clock, time, self.wrong)

    def start(self) -> None:
        """Begin to fetch the keys of issuers, and to write down when keys are used."""
        if self._use is not None:
            self._use.start()
        if self._tokens is not None:
            self._tokens.start()

    def stop(self) -> None:
        """End what goes on."""
        if self._use is not None:
            self._use.stop()
        if self._tokens is not None:
            self._tokens.stop()

    def warnings(self) -> Sequence[str]:
        """What an operator should know."""
        return () if self._tokens is None else self._tokens.warnings

    def caller(self, secret: bytes, verify: bool = True) -> Caller | None:
        """See `openhqm.ingress.access.Keys`."""
        if secret.startswith(_PREFIX):  # looked up, which costs less than to refuse it
            return None if self._keys is None else self._keys.caller(secret)
        return None if self._tokens is None else self._tokens.caller(secret, verify)

    def certified(self, connection: Any) -> Caller | None:
        """See `openhqm.ingress.access.Keys`."""
        return None if self._certificates is None else self._certificates.caller(connection)


def make_authentication(settings: Settings, reactor: Any, registry: CollectorRegistry) -> Authentication:
    """What ``auth`` asks for. `ConfigurationError` where a file cannot be used. Its metric is in ``registry``."""
    auth, client_crl = settings.auth, settings.server.tls.client_crl
    found: list[Complaint] = []
    keys = tokens = use = None
    if auth.keys_file is not None:
        use = KeyUse(auth.keys_file, reactor, deferToThread)
        keys = KeyFile(auth.keys_file, reactor.seconds, time, use)
        try:
            keys.open()
        except ValueError as error:
            found.append(Complaint("auth.keys_file", f"{auth.keys_file}: {error}"))
    if auth.jwt.issuers:
        issuers = [_issuer(auth.jwt, index, reactor, found) for index in range(len(auth.jwt.issuers))]
        tokens = Tokens(issuers, reactor.seconds, time)
    certificates = None
    if auth.mtls.clients:
        refuses = None if client_crl is None else _revocations(client_crl, reactor, found)
        certificates = Certificates(_clients(auth.mtls, found), time, refuses)
    if found:
        raise ConfigurationError(found)
    wrong = make_wrong_logins(auth.wrong_logins, reactor.seconds, registry)
    return Authentication(keys, tokens, certificates, reactor, wrong, use)


def _revocations(path: str, reactor: Any, found: list[Complaint]) -> Callable[[bytes, int], bool] | None:
    try:
        from openhqm.runtime.revocation import Revocations  # here, because it imports cryptography

        revocations = Revocations(path, reactor.seconds, time)
        revocations.open()
    except ImportError:  # what asks for TLS says so
        return None
    except ValueError as error:
        found.append(Complaint("server.tls.client_crl", str(error)))
        return None
    return revocations.refuses


def _clients(mtls: MTLS, found: list[Complaint]) -> dict[str, Caller]:
    clients = {}
    for index, each in enumerate(mtls.clients):
        try:
            name = same_name(each.name)
        except ValueError as error:
            kind = "san" if each.subject is None else "subject"
            found.append(Complaint(f"auth.mtls.clients.{index}.{kind}", str(error)))
        else:
            clients[name] = Caller(each.tenant, each.role_set, f"mtls:{name}")
    return clients


def _issuer(jwt: JWT, index: int, reactor: Any, found: list[Complaint]) -> Issuer:
    issuer, key = jwt.issuers[index], f"auth.jwt.issuers.{index}"
    if issuer.jwks_url is not None:
        policy = key_set_policy(issuer.jwks_url, jwt.allow)
        client = guarded_client(reactor, policy.check, policy.permits, tls=_tls(issuer, f"{key}.ca", reactor, found))
        return Issuer(issuer.rules(), FetchedKeys(issuer.jwks_url, client, reactor))
    keys: list[TokenKey] = []
    try:
        if issuer.secret_file is not None:
            key += ".secret_file"
            _, secret = read_private(issuer.secret_file, MOST_BYTES)
            keys.append(shared_key(secret.strip(), issuer.algorithms))
    except ValueError as error:
        found.append(Complaint(key, f"{issuer.secret_file}: {error}"))
    for number, path in enumerate(issuer.key_files):
        try:
            keys += read_key_file(_read(path))
        except ValueError as error:
            found.append(Complaint(f"{key}.key_files.{number}", f"{path}: {error}"))
    if keys and not any(each.algorithms & set(issuer.algorithms) for each in keys):
        found.append(Complaint(f"auth.jwt.issuers.{index}.key_files", "has no key for any of its algorithms"))
    return Issuer(issuer.rules(), FixedKeys(keys))


def _tls(issuer: TokenIssuer, key: str, reactor: Any, found: list[Complaint]) -> Any:
    if issuer.ca is None:
        return None
    from openhqm.runtime.renewed_tls import RenewedTLS  # here, because it imports OpenSSL

    try:
        return RenewedTLS(issuer.ca, None, None, key, reactor.seconds)
    except ValueError as error:
        found.append(Complaint(key, str(error)))
        return None


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(text) > MOST_BYTES:
        raise ValueError(f"must be a file of at most {MOST_BYTES} bytes")
    return text
