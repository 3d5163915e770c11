# -*- test-case-name: tests.config.test_auth -*-
"""What the ways in which callers prove who they are need beside each other."""

from __future__ import annotations

from openhqm.config.model import Settings
from openhqm.config.validators import has_jwt, has_tls
from openhqm.errors import how_to_install

_WAYS = {"keys_file": "api_key", "jwt.issuers": "jwt", "mtls.clients": "mtls"}
"""What configures each way."""
_MISSING = {
    "keys_file": "is missing: name the file that openhqm keys new has made",
    "jwt.issuers": "is missing: name an issuer, with its audiences and where its keys are",
    "mtls.clients": "is missing: name the san or the subject of a certificate, its tenant and its roles",
}


def about_who_may(settings: Settings) -> list[tuple[str, str]]:
    """Each key of ``auth`` with what is wrong with it beside the others."""
    auth = settings.auth
    configured = {
        "keys_file": auth.keys_file is not None,
        "jwt.issuers": bool(auth.jwt.issuers),
        "mtls.clients": bool(auth.mtls.clients),
    }
    if auth.type in (None, "none"):
        return [
            (f"auth.{key}", f"has no effect without auth.type: {way}") for key, way in _WAYS.items() if configured[key]
        ]
    if settings.proxy.sidecar.enabled:
        return [
            (
                "auth.type",
                f"{auth.type} is not for a sidecar: what it passes on has the application's own credentials",
            )
        ]
    found = []
    for key, way in _WAYS.items():
        if auth.type == way and not configured[key]:
            found.append((f"auth.{key}", _MISSING[key]))
        if auth.type not in (way, "any") and configured[key]:
            found.append(
                (f"auth.{key}", f"has no effect with auth.type: {auth.type}; any takes all that is configured")
            )
    if auth.type == "any" and not any(configured.values()):
        found.append(("auth.type", f"any needs one of {', '.join(f'auth.{key}' for key in _WAYS)}"))
    if auth.mtls.clients and settings.server.tls.client_ca is None:
        found.append(("server.tls.client_ca", "is missing: the CAs of the certificates in auth.mtls"))
    if auth.jwt.issuers and not has_jwt():
        found.append(("auth.jwt", f"needs PyJWT: {how_to_install('jwt')}"))
    if any(each.jwks_url for each in auth.jwt.issuers) and not has_tls():
        found.append(("auth.jwt", f"a jwks_url needs TLS: {how_to_install('tls')}"))
    return found


def about_tls(settings: Settings) -> list[tuple[str, str]]:
    """Each key of ``server`` and ``admin`` that does not fit TLS."""
    server, admin = settings.server, settings.admin
    found = []
    if admin.tls.client_ca is not None:
        found.append(("admin.tls.client_ca", "has no effect: callers of the admin listener have admin.key"))
    if admin.tls.hsts_seconds is not None:
        found.append(("admin.tls.hsts_seconds", "has no effect: no browser calls the admin listener"))
    if admin.tls.cert is not None and not has_tls():
        found.append(("admin.tls", f"needs TLS: {how_to_install('tls')}"))
    if server.tls.cert is None:
        return found
    for endpoint in server.endpoints:
        kind = endpoint.partition(":")[0]
        if kind in ("ssl", "unix"):
            cure = "leave out server.tls" if kind == "ssl" else "leave it out, or server.tls"
            found.append(("server.endpoints", f"{kind}: does not go with server.tls, which is for all of them: {cure}"))
    if not has_tls():
        found.append(("server.tls", f"needs TLS: {how_to_install('tls')}"))
    if server.tls.client_ca is not None and not settings.auth.mtls.clients:
        found.append(("server.tls.client_ca", "has no effect without auth.mtls.clients"))
    return found
