# -*- test-case-name: tests.config.test_auth -*-
"""What the ways in which callers prove who they are need beside each other."""

from __future__ import annotations

from openhqm.config.model import Settings
from openhqm.config.validators import has_jwt, has_tls
from openhqm.errors import how_to_install

_WAYS = {"keys_file": "api_key", "jwt.issuers": "jwt"}
"""What configures each way."""
_MISSING = {
    "keys_file": "is missing: name the file that openhqm keys new has made",
    "jwt.issuers": "is missing: name an issuer, with its audiences and where its keys are",
}


def about_who_may(settings: Settings) -> list[tuple[str, str]]:
    """Each key of ``auth`` with what is wrong with it beside the others."""
    auth = settings.auth
    configured = {"keys_file": auth.keys_file is not None, "jwt.issuers": bool(auth.jwt.issuers)}
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
    if auth.jwt.issuers and not has_jwt():
        found.append(("auth.jwt", f"needs PyJWT: {how_to_install('jwt')}"))
    if any(each.jwks_url for each in auth.jwt.issuers) and not has_tls():
        found.append(("auth.jwt", f"a jwks_url needs TLS: {how_to_install('tls')}"))
    return found
