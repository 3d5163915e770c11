"""Tokens and keys for tests: an issuer that can also write what no honest issuer would."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://login.example.com/"
AUDIENCE = "openhqm"
NOW = 1_800_000_000


@cache
def _rsa_key(bits: int, number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """A private key, the same one for the same arguments."""
    return _rsa_key(bits, number)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """A private key on P-256, always the same one."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    """A private Ed25519 key, always the same one."""
    return ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    """The public half in PEM."""
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def jwk(key: Any, key_id: str | None = None, **members: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        found = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_numbers()
        found = {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
    else:
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        found = {"kty": "OKP", "crv": "Ed25519", "x": text64(raw)}
    return {**found, **({} if key_id is None else {"kid": key_id}), **members}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    """A JWK set."""
    return json.dumps({"keys": keys}).encode()


def claims(**others: Any) -> dict[str, Any]:
    """Good claims, with others beside them or in their place; None: without that one."""
    found = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": NOW - 10,
        "exp": NOW + 300,
        "tenant": "shop",
        "scope": "submit read",
        **others,
    }
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any = None, header: Any = None, payload: Any = None, algorithm: str = "RS256") -> bytes:
    """A token signed by ``key``. Header and payload may be bytes, which are signed as they are."""
    key = rsa_key() if key is None else key
    first = header if isinstance(header, bytes) else json.dumps(header or {"alg": algorithm, "typ": "JWT"}).encode()
    second = payload if isinstance(payload, bytes) else json.dumps(payload or claims()).encode()
    return signed(key, base64(first) + b"." + base64(second))


def signed(key: Any, text: bytes) -> bytes:
    """``text``, a dot, and the signature by ``key``; bytes are the secret of HS256."""
    if isinstance(key, bytes):
        signature = hmac.new(key, text, hashlib.sha256).digest()
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    else:
        signature = key.sign(text)
    return text + b"." + base64(signature)


def base64(text: bytes) -> bytes:
    """base64url without padding."""
    return urlsafe_b64encode(text).rstrip(b"=")


def text64(text: bytes) -> str:
    """`base64` as text."""
    return base64(text).decode()


def _number(number: int, length: int | None = None) -> str:
    return text64(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))
