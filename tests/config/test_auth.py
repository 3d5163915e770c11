"""What is refused at the start of who may do what: each complaint has the key and the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.errors import Complaint, ConfigurationError

ISSUER: dict[str, Any] = {
    "issuer": "https://login.example.com/",
    "audiences": ["openhqm"],
    "jwks_url": "https://login.example.com/jwks",
    "tenant": "shop",
    "roles": ["submit"],
}


def jwt(**others: Any) -> dict[str, Any]:
    """``auth`` with an issuer, some of whose keys are others; None: without that key."""
    issuer = {key: value for key, value in {**ISSUER, **others}.items() if value is not None}
    return {"auth": {"type": "jwt", "jwt": {"issuers": [issuer]}}}


def jwt_allowing(*allow: str, **others: Any) -> dict[str, Any]:
    """The same, with hosts and networks that are not public."""
    document = jwt(**others)
    document["auth"]["jwt"]["allow"] = list(allow)
    return document


TLS = {"cert": "a.pem", "key": "a.key"}


def mtls(*clients: dict[str, Any], tls: dict[str, Any] | None = None) -> dict[str, Any]:
    """``auth`` with clients that have certificates."""
    made = [{"tenant": "shop", "roles": ["submit"], **each} for each in clients]
    files = {**TLS, "client_ca": "ca.pem"} if tls is None else tls
    return {"server": {"tls": files}, "auth": {"type": "mtls", "mtls": {"clients": made}}}


AT = "auth.jwt.issuers.0."
FILES = {"jwks_url": None, "key_files": ["a.pem"]}
REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"server": {"host": "0.0.0.0"}}, "server.host", "auth.type: api_key or jwt"),
    ({"server": {"endpoints": ["tcp:8000"]}}, "server.endpoints", "interface=127.0.0.1"),
    (jwt(issuer=None), f"{AT}issuer", "missing"),
    (jwt(audiences=None), f"{AT}audiences", "another service"),
    (jwt(audiences=[]), f"{AT}audiences", "another service"),
    (jwt(audiences=[""]), f"{AT}audiences", "another service"),
    (jwt(algorithms=[]), f"{AT}algorithms", "[RS256]"),
    (jwt(algorithms=["none"]), f"{AT}algorithms", "leave it out"),
    (jwt(algorithms=["RS256", "None"]), f"{AT}algorithms", "leave it out"),
    (jwt(algorithms=["rs256"]), f"{AT}algorithms", "RS256"),
    (jwt(algorithms=["RS256", "HS256"]), f"{AT}algorithms", "two issuers"),
    (jwt(algorithms=["HS256"]), f"{AT}jwks_url", "secret_file"),
    (jwt(algorithms=["HS256"], **FILES), f"{AT}key_files", "secret_file"),
    (jwt(algorithms=["HS256"], jwks_url=None), f"{AT}secret_file", "missing"),
    (jwt(secret_file="a"), f"{AT}secret_file", "no effect"),
    (jwt(jwks_url=None), f"{AT}jwks_url", "key_files"),
    (jwt(key_files=["a.pem"]), f"{AT}jwks_url", "not both"),
    (jwt(jwks_url="http://login.example.com/jwks"), f"{AT}jwks_url", "https://"),
    (jwt(jwks_url="file:///etc/passwd"), f"{AT}jwks_url", "https://"),
    (jwt(jwks_url="https://localhost/jwks"), f"{AT}jwks_url", "auth.jwt.allow"),
    (jwt(jwks_url="https://10.0.0.1/jwks"), f"{AT}jwks_url", "auth.jwt.allow"),
    (jwt(jwks_url="https://[::1]/jwks"), f"{AT}jwks_url", "auth.jwt.allow"),
    (jwt(jwks_url="https://169.254.169.254/"), f"{AT}jwks_url", "auth.jwt.allow"),
    (jwt(jwks_url="https://2130706433/"), f"{AT}jwks_url", "auth.jwt.allow"),
    (jwt(jwks_url="https://a:b@login.example.com/"), f"{AT}jwks_url", "user information"),
    (jwt(jwks_url="https://login.example.com:99999/"), f"{AT}jwks_url", "65535"),
    (jwt(ca="ca.pem", **FILES), f"{AT}ca", "no effect"),
    (jwt(tenant=None), f"{AT}tenant", "tenant_claim"),
    (jwt(tenant_claim="tenant"), f"{AT}tenant", "not both"),
    (jwt(tenant="../x"), f"{AT}tenant", "small letters"),
    (jwt(roles=None), f"{AT}roles", "roles_claim"),
    (jwt(roles=["root"]), f"{AT}roles", "submit"),
    (jwt(role_names={"a": ["submit"]}), f"{AT}role_names", "roles_claim"),
    (jwt(roles_claim="scope", role_names={"a": ["root"]}), f"{AT}role_names", "submit"),
    (jwt(leeway_seconds=61), f"{AT}leeway_seconds", "60"),
    (jwt_allowing("10.0.0.0/8", **FILES), "auth.jwt.allow", "jwks_url"),
    ({"auth": {"type": "jwt", "jwt": {"issuers": [ISSUER, ISSUER]}}}, "auth.jwt.issuers.1.issuer", "twice"),
    ({"auth": {"type": "jwt"}}, "auth.jwt.issuers", "missing"),
    ({"auth": {"type": "any"}}, "auth.type", "auth.keys_file"),
    ({"auth": {"type": "api_key"}}, "auth.keys_file", "openhqm keys new"),
    ({"auth": {"jwt": {"issuers": [ISSUER]}}}, "auth.jwt.issuers", "auth.type: jwt"),
    ({"auth": {"type": "none", "keys_file": "keys.json"}}, "auth.keys_file", "auth.type: api_key"),
    ({"auth": {**jwt()["auth"], "keys_file": "keys.json"}}, "auth.keys_file", "any"),
    ({"auth": {"type": "token"}}, "auth.type", "jwt"),
    (mtls({"san": "billing"}), "auth.mtls.clients.0.san", "DNS:"),
    (mtls({}), "auth.mtls.clients.0.san", "subject"),
    (mtls({"san": "DNS:a", "subject": "CN=a"}), "auth.mtls.clients.0.san", "not both"),
    (mtls({"san": "DNS:a", "tenant": "../a"}), "auth.mtls.clients.0.tenant", "small letters"),
    (mtls({"san": "DNS:a", "tenant": ""}), "auth.mtls.clients.0.tenant", "missing"),
    (mtls({"san": "DNS:a", "roles": []}), "auth.mtls.clients.0.roles", "missing"),
    (mtls({"san": "DNS:a", "roles": ["root"]}), "auth.mtls.clients.0.roles", "submit"),
    (mtls({"san": "DNS:a"}, {"san": "DNS:a"}), "auth.mtls.clients.1", "before it"),
    (mtls(), "auth.mtls.clients", "missing"),
    (mtls({"san": "DNS:a"}, tls={}), "server.tls.client_ca", "missing"),
    ({"server": {"tls": {**TLS, "client_ca": "ca.pem"}}}, "server.tls.client_ca", "auth.mtls.clients"),
    ({"server": {"tls": {"cert": "a.pem"}}}, "server.tls.key", "missing"),
    ({"server": {"tls": {"key": "a.key"}}}, "server.tls.cert", "missing"),
    ({"server": {"tls": {**TLS, "minimum_version": "1.1"}}}, "server.tls.minimum_version", "1.2 or 1.3"),
    ({"server": {"tls": {"hsts_seconds": 1}}}, "server.tls.cert", "missing"),
    ({"server": {"tls": {**TLS, "hsts_seconds": -1}}}, "server.tls.hsts_seconds", "from 0"),
    ({"admin": {"port": 0, "tls": {**TLS, "hsts_seconds": 1}}}, "admin.tls.hsts_seconds", "no browser"),
    ({"admin": {"port": 0, "tls": {**TLS, "client_ca": "a"}}}, "admin.tls.client_ca", "admin.key"),
    ({"admin": {"port": 0, "tls": {"cert": "a.pem"}}}, "admin.tls.key", "missing"),
    ({"admin": {"port": 0, "host": "0.0.0.0"}}, "admin.key", "127.0.0.1"),
    ({"server": {"proxy_protocol": True}}, "server.trusted_proxies", "addresses of the proxies"),
    ({"server": {"trusted_proxies": ["10.0.0.1"]}}, "server.trusted_proxies", "rate_limit"),
    ({"server": {"tls": TLS, "endpoints": ["unix:/tmp/a"]}}, "server.endpoints", "server.tls"),
    (
        {"server": {"tls": TLS, "endpoints": ["ssl:443:interface=127.0.0.1"]}},
        "server.endpoints",
        "leave out server.tls",
    ),
)


class AuthTests(SynchronousTestCase):
    """The section ``auth``"""

    def load(self, document: dict[str, Any]) -> Any:
        path = Path(self.mktemp())
        with path.open("w") as file:
            YAML().dump({"worker": {"handler": "echo"}, **document}, file)
        return load(path, {}, PRODUCTS)

    def complaints(self, document: dict[str, Any]) -> list[Complaint]:
        return self.assertRaises(ConfigurationError, self.load, document).complaints

    def test_refused(self) -> None:
        """Each line of the table is refused, by the key that is wrong, with what to do."""
        for document, key, word in REFUSED:
            found = {each.key: each.reason for each in self.complaints(document)}
            self.assertIn(key, found, document)
            self.assertIn(word, found[key], document)

    def test_good(self) -> None:
        """What is complete is taken, also on all interfaces; private servers of keys where they are allowed."""
        for document in (
            jwt(),
            jwt(**FILES, algorithms=["ES256", "EdDSA"]),
            jwt(algorithms=["HS512"], jwks_url=None, secret_file="secret"),
            jwt(jwks_url="https://login.example.com:8443/jwks?a=b"),
            jwt_allowing("keys.internal", "10.0.0.0/8", jwks_url="https://keys.internal/"),
            jwt(tenant=None, tenant_claim="org", roles=None, roles_claim="scope"),
            {"auth": {**jwt()["auth"], "type": "any", "keys_file": "keys.json"}},
            {"auth": {"type": "any", "keys_file": "keys.json"}},
        ):
            self.load({**document, "server": {"host": "0.0.0.0"}})
        for document in (
            mtls({"san": "DNS:a"}, {"san": "URI:a:b"}, {"san": "IP:::1"}, {"subject": "CN=a,O=b"}),
            {"server": {"tls": {**TLS, "minimum_version": 1.3}, "endpoints": ["tcp:443:interface=127.0.0.1"]}},
        ):
            self.load(document)
