# -*- test-case-name: tests.policy.test_token_keys -*-
"""The keys that prove tokens: read from PEM, from JWK and from JWK sets (RFC 7517), each with what it is good for.

PyJWT does not look at ``use`` and ``key_ops``, and takes small keys with a warning. A key here says itself which
algorithms it may verify, so no token can have a key used for another one (RFC 8725, section 3.1).

PyJWT and cryptography (the extra ``jwt``) are imported where a key is read, and not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import attrs

from openhqm.errors import MalformedJSON
from openhqm.policy.json_text import members, parse_object
from openhqm.policy.token_rules import SHARED
from openhqm.policy.token_text import MOST_NAME, TokenText, refuse

MOST_KEYS = 100
MOST_TRIED = 4
"""Keys that one token may cost the time of: those without a ``kid``, or several with the same."""
LEAST_RSA, MOST_RSA = 2048, 8192
_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_PUBLIC = re.compile(rb"-----BEGIN |ssh-|ecdsa-|---- BEGIN ")


@attrs.frozen
class TokenKey:
    """A key, and the algorithms that it may verify. ``key_id`` None: it is tried for every ``kid``."""

    key_id: str | None
    algorithms: frozenset[str]
    material: Any = attrs.field(repr=False)
    identity: bytes = attrs.field(default=b"", repr=False)
    """The same for the same key, also where it was read again."""


def check_signature(token: TokenText, keys: Iterable[TokenKey]) -> bool:
    """Whether a key of ``keys`` fits the token. Raises `TokenRefused` where none of those that fit has signed it.

    False: no key fits, and a newer set of keys may have one.
    """
    fitting = [key for key in keys if token.algorithm in key.algorithms and _fits(token.key_id, key.key_id)]
    if not fitting:
        return False
    from jwt.algorithms import get_default_algorithms

    algorithm = get_default_algorithms()[token.algorithm]
    if not any(algorithm.verify(token.signed, key.material, token.signature) for key in fitting[:MOST_TRIED]):
        refuse("has a signature that no key of its issuer has made")
    return True


def _fits(wanted: str | None, known: str | None) -> bool:
    return wanted is None or known is None or wanted == known


def read_key_file(text: bytes) -> list[TokenKey]:
    """The public keys in a file of PEM blocks, with one JWK, or with a JWK set. `ValueError` says what is wrong."""
    if text.lstrip().startswith(b"{"):
        document = _document(text)
        return [_jwk(each) for each in (_entries(document) if "keys" in document else [document])]
    blocks = [(match[1], match[0]) for match in _PEM.finditer(text)]
    if not blocks:
        raise ValueError("holds no public key: PEM, a JWK or a JWK set is read")
    return [_pem(kind, block) for kind, block in blocks]


def read_key_set(text: bytes) -> list[TokenKey]:
    """The keys of a JWK set that verify signatures. Others are left out (RFC 7517, section 5). `ValueError`: no set."""
    found = []
    for entry in _entries(_document(text)):
        try:
            found.append(_jwk(entry))
        except ValueError:
            continue
    return found


def shared_key(secret: bytes, algorithms: Iterable[str]) -> TokenKey:
    """The key of ``HS256`` and its like. `ValueError` where the secret is too short, or a public key.

    With a public key for the secret, everybody could sign (RFC 8725, section 2.1).
    """
    wanted = frozenset(algorithms)
    if _PUBLIC.match(secret.lstrip()) or _is_der(secret) or _is_jwk(secret):
        raise ValueError("is a public key or a certificate, which everybody may know: HS256 needs a secret")
    least = max(SHARED[each] for each in wanted)
    if len(secret) < least:
        raise ValueError(f"has {len(secret)} bytes, and {', '.join(sorted(wanted))} needs {least} random ones")
    return TokenKey(None, wanted, secret)


def _document(text: bytes) -> dict[str, Any]:
    try:
        members(text)
        return parse_object(text, "the document")
    except MalformedJSON as error:
        raise ValueError(f"is no JWK and no JWK set: {error.reason}") from None


def _entries(document: dict[str, Any]) -> Sequence[Any]:
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError('is no JWK set: {"keys": [...]}')
    if len(entries) > MOST_KEYS:
        raise ValueError(f"has {len(entries)} keys, and at most {MOST_KEYS} are read")
    return entries


def _jwk(entry: Any) -> TokenKey:
    if not isinstance(entry, dict):
        raise ValueError("has a key that is not an object")
    if "d" in entry or entry.get("kty") == "oct":
        raise ValueError("holds a secret key, and only its public half belongs here")
    key_id, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    if not (key_id is None or (isinstance(key_id, str) and 0 < len(key_id) <= MOST_NAME)):
        raise ValueError("has a kid that is not a short string")
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("has a key that is not for signatures (use, key_ops)")
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    try:
        material = PyJWK({name: each for name, each in entry.items() if name != "alg"}).key
    except (PyJWTError, TypeError, ValueError):  # what they say quotes the key
        raise ValueError("has a key that is malformed, or of a kind that is not known") from None
    suitable = _algorithms(material)
    if "alg" in entry:
        suitable &= {entry["alg"]} if isinstance(entry["alg"], str) else set()
    if not suitable:
        raise ValueError("has a key for an algorithm that is not its own (alg)")
    return TokenKey(key_id, suitable, material, _identity(key_id, suitable, material))


def _pem(kind: bytes, block: bytes) -> TokenKey:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    if b"PRIVATE" in kind:
        raise ValueError("holds a private key, and only its public half belongs here: openssl pkey -pubout")
    try:
        certified = kind == b"CERTIFICATE"
        material = load_pem_x509_certificate(block).public_key() if certified else load_pem_public_key(block)
    except Exception:  # OpenSSL and cryptography raise many kinds
        raise ValueError("holds no public key that can be read") from None
    return TokenKey(None, _algorithms(material), material)


def _algorithms(material: Any) -> frozenset[str]:
    """What a public key is good for."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(material, RSAPublicKey):
        if not LEAST_RSA <= material.key_size <= MOST_RSA:
            raise ValueError(f"has an RSA key of {material.key_size} bits: from {LEAST_RSA} to {MOST_RSA} are good")
        return _RSA
    if isinstance(material, EllipticCurvePublicKey) and material.curve.name in _CURVES:
        return frozenset((_CURVES[material.curve.name],))
    if isinstance(material, Ed25519PublicKey):
        return frozenset(("EdDSA",))
    raise ValueError("has a key of a kind that is not known: RSA, P-256, P-384, P-521 and Ed25519 are")


def _identity(key_id: str | None, suitable: Iterable[str], material: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    encoded: bytes = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return repr((key_id, sorted(suitable))).encode() + encoded


def _is_der(text: bytes) -> bool:
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from cryptography.x509 import load_der_x509_certificate

    for load in (load_der_public_key, load_der_x509_certificate):
        with suppress(Exception):  # OpenSSL and cryptography raise many kinds
            load(text)
            return True
    return False


def _is_jwk(text: bytes) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and ("kty" in found or "keys" in found)
