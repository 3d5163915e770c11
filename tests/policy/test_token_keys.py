"""Keys for tokens: which are taken, and for which algorithms."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.token_keys import MOST_KEYS, read_key_file, read_key_set, shared_key
from tests.signing import ec_key, ed_key, jwk, jwks, pem, rsa_key

PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def der(key: Any) -> bytes:
    """The public half in DER."""
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


class FileTests(SynchronousTestCase):
    """`read_key_file`"""

    def test_kinds(self) -> None:
        """PEM, one after the other, a JWK and a set are read; each key is for its own algorithms."""
        two = read_key_file(pem(rsa_key()) + b"\n" + pem(ec_key()))
        self.assertEqual([("RS256" in key.algorithms, "ES256" in key.algorithms) for key in two], [(1, 0), (0, 1)])
        (one,) = read_key_file(json.dumps(jwk(ed_key(), "k", alg="EdDSA")).encode())
        self.assertEqual((one.key_id, one.algorithms), ("k", {"EdDSA"}))
        (one,) = read_key_file(jwks(jwk(rsa_key(), "k", alg="RS512")))
        self.assertEqual(one.algorithms, {"RS512"})

    def test_refused(self) -> None:
        """A private key, a secret, a small or unknown key, and a key for another purpose are refused at the start."""
        p224 = ec.generate_private_key(ec.SECP224R1())
        for text, word in (
            (b"", "no public key"),
            (b"{", "no JWK"),
            (b"{}", "malformed"),
            (b'{"keys": 1}', "no JWK set"),
            (rsa_key().private_bytes(*PRIVATE), "private key"),
            (json.dumps({**jwk(rsa_key()), "d": "AQAB"}).encode(), "secret key"),
            (b'{"kty":"oct","k":"AAAA"}', "secret key"),
            (pem(rsa_key(1024)), "1024 bits"),
            (pem(p224), "kind that is not known"),
            (jwks(jwk(rsa_key(), use="enc")), "use"),
            (jwks(jwk(rsa_key(), key_ops=["sign"])), "key_ops"),
            (jwks(jwk(rsa_key(), key_ops="verify")), "key_ops"),
            (jwks(jwk(rsa_key(), alg="ES256")), "algorithm that is not its own"),
            (jwks(jwk(rsa_key(), alg=["RS256"])), "algorithm that is not its own"),
            (jwks(jwk(rsa_key(), kid=7)), "kid"),
            (jwks(*[jwk(ed_key())] * (MOST_KEYS + 1)), "at most"),
            (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key"),
        ):
            self.assertIn(word, str(self.assertRaises(ValueError, read_key_file, text)), text)

    def test_set(self) -> None:
        """Of a fetched set, keys that are of no use are left out, and the others are good."""
        found = read_key_set(
            jwks(jwk(rsa_key(), use="enc"), {"kty": "new"}, jwk(ec_key(), "k"), jwk(rsa_key(1024)), {"kty": "oct"})
        )
        self.assertEqual([key.key_id for key in found], ["k"])
        for text in (b"[]", b"<html>", b'{"keys":{}}', jwks(*[jwk(ed_key())] * 101), b"[" * 100_000):
            self.assertRaises(ValueError, read_key_set, text)


class SharedTests(SynchronousTestCase):
    """`shared_key`"""

    def test_refused(self) -> None:
        """A public key in any form is no secret, and neither is a short one."""
        for secret, word in (
            (pem(rsa_key()), "public key"),
            (b"  " + pem(ec_key()), "public key"),
            (der(rsa_key()), "public key"),
            (json.dumps(jwk(rsa_key())).encode(), "public key"),
            (jwks(jwk(rsa_key())), "public key"),
            (b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ", "public key"),
            (b"short", "5 bytes"),
            (bytes(31), "31 bytes"),
        ):
            self.assertIn(word, str(self.assertRaises(ValueError, shared_key, secret, ["HS256"])))
        self.assertRaises(ValueError, shared_key, bytes(63), ["HS256", "HS512"])
        self.assertEqual(shared_key(bytes(64), ["HS512"]).algorithms, {"HS512"})
