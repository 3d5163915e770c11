"""Whom a token stands for: every attack of RFC 8725 and more against `Tokens`, as one table."""

from __future__ import annotations

import json
from typing import Any

import attrs
import jwt
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.key_sets import FixedKeys
from openhqm.ingress.tokens import MOST_REMEMBERED, Issuer, Tokens
from openhqm.policy.api_keys import Caller, Role
from openhqm.policy.token_keys import TokenKey, read_key_set, shared_key
from openhqm.policy.token_rules import IssuerRules
from tests.signing import (
    AUDIENCE,
    ISSUER,
    NOW,
    base64,
    claims,
    ec_key,
    ed_key,
    jwk,
    jwks,
    pem,
    rsa_key,
    signed,
    token,
)

RULES = IssuerRules(
    issuer=ISSUER, audiences=[AUDIENCE], algorithms=["RS256"], tenant_claim="tenant", roles_claim="scope"
)
ANY_EC = "https://ec.example.com/"
SHARED = "https://shared.example.com/"
SECRET = bytes(range(32))
BOTH = frozenset({Role.SUBMIT, Role.READ})


def keys() -> list[TokenKey]:
    """Two keys of the issuer, and one that it must not sign tokens with."""
    return read_key_set(
        jwks(
            jwk(rsa_key(), "one", use="sig", alg="RS256"),
            jwk(rsa_key(number=1), "two"),
            jwk(rsa_key(number=2), "encryption", use="enc"),
            jwk(rsa_key(number=3), "wrapping", key_ops=["wrapKey"]),
            jwk(rsa_key(1024), "small"),
            {"kty": "oct", "kid": "public-secret", "k": "AAAA"},
        )
    )


def header(**members: Any) -> dict[str, Any]:
    """A good header, with others beside it or in its place."""
    return {"alg": "RS256", "typ": "JWT", "kid": "one", **members}


def good(**members: Any) -> bytes:
    """A good token, but for the members of its header."""
    return token(header=header(**members))


def claiming(**others: Any) -> bytes:
    """A good token, but for its claims."""
    return token(header=header(), payload=claims(**others))


def with_text(text: str, was: str = '"scope"') -> bytes:
    """A well signed token whose payload has ``text`` before the scope."""
    return token(header=header(), payload=json.dumps(claims()).replace(was, f"{text}, {was}", 1).encode())


def parts(number: int, change: Any) -> bytes:
    """A good token of which one part was changed after it was signed."""
    found = good().split(b".")
    found[number] = change(found[number])
    return b".".join(found)


def resigned(header_text: bytes) -> bytes:
    """A token with this text of a header, encoded, signed well."""
    return signed(rsa_key(), header_text + b"." + base64(json.dumps(claims()).encode()))


def by_pyjwt(number: int, key_id: str, algorithm: str) -> bytes:
    """A token that is signed well, by another algorithm."""
    return jwt.encode(claims(), rsa_key(number=number), algorithm, {"kid": key_id}).encode()


UNSIGNED = base64(b'{"alg":"none"}') + b"." + base64(json.dumps(claims()).encode()) + b"."
STRAY = base64(b"{ }x")  # its last character may carry two bits that are not read

ATTACKS: dict[str, bytes] = {
    "nothing": b"",
    "no token": b"x",
    "dots": b"..",
    "alg none": UNSIGNED,
    "alg none, with a signature": good(alg="none"),
    "alg None": good(alg="nOnE"),
    "alg HS256 with the public key": token(pem(rsa_key()), header(alg="HS256")),
    "alg HS256 with the empty secret": token(b"", header(alg="HS256")),
    "alg HS256 with an oct key of the set": token(b"\0\0\0", header(alg="HS256", kid="public-secret")),
    "alg PS256, which the issuer does not use": good(alg="PS256"),
    "alg ES256, which the issuer does not use": token(ec_key(), header(alg="ES256")),
    "alg PS256, signed well": by_pyjwt(1, "two", "PS256"),
    "alg RS512, signed well": by_pyjwt(1, "two", "RS512"),
    "alg missing": token(header={"typ": "JWT"}),
    "alg a list": good(alg=["RS256"]),
    "alg null": good(alg=None),
    "signed by a stranger": token(rsa_key(number=9), header()),
    "signed by the other key of the issuer": token(rsa_key(number=1), header()),
    "signed by the key for encryption (use)": token(rsa_key(number=2), header(kid="encryption")),
    "signed by the key for wrapping (key_ops)": token(rsa_key(number=3), header(kid="wrapping")),
    "signed by a key of 1024 bits": token(rsa_key(1024), header(kid="small")),
    "no signature": parts(2, lambda _: b""),
    "signature cut": parts(2, lambda part: part[:-4]),
    "signature longer": parts(2, lambda part: part + b"AAAA"),
    "payload changed": parts(1, lambda _: base64(json.dumps(claims(tenant="other")).encode())),
    "kid a path": good(kid="../../../../dev/null"),
    "kid SQL": good(kid="one' OR '1'='1"),
    "kid a command": good(kid="one|whoami"),
    "kid a URL": good(kid="https://attacker.example/jwks.json"),
    "kid empty": good(kid=""),
    "kid a number": good(kid=1),
    "kid long": good(kid="a" * 300),
    "kid with NUL": good(kid="one\x00"),
    "jku": good(jku="https://attacker.example/jwks.json"),
    "jwk": token(rsa_key(number=9), header(jwk=jwk(rsa_key(number=9)))),
    "x5u": good(x5u="https://attacker.example/cert.pem"),
    "x5c": good(x5c=["MII"]),
    "crit unknown": good(crit=["exp"], exp=1),
    "crit empty": good(crit=[]),
    "crit b64": good(crit=["b64"], b64=False),
    "b64": good(b64=False),
    "zip": good(zip="DEF"),
    "cty, a token in a token": good(cty="JWT"),
    "typ of another purpose": good(typ="logout+jwt"),
    "typ DPoP": good(typ="dpop+jwt"),
    "typ a number": good(typ=1),
    "JWE": b".".join((base64(b'{"alg":"RSA-OAEP","enc":"A256GCM"}'), b"a", b"b", b"c", b"d")),
    "five parts": good() + b".a.b",
    "two parts": b".".join(good().split(b".")[:2]),
    "JSON form of a JWS": json.dumps({"payload": "e30", "signatures": []}).encode(),
    "a token in a token": token(header=header(), payload=good()),
    "header padded": resigned(base64(b'{"alg":"RS256", "typ":"JWT"}') + b"=="),
    "signature padded": good() + b"==",
    "payload padded": signed(rsa_key(), base64(json.dumps(header()).encode()) + b"." + base64(b"{}") + b"="),
    "base64 of the other alphabet": parts(2, lambda part: part.replace(b"-", b"+").replace(b"_", b"/") + b"+/"),
    "blanks": b" " + good(),
    "line break": good().replace(b".", b".\n", 1),
    "NUL": good() + b"\0",
    "not ASCII": good() + b"\xff",
    "stray bits": resigned(base64(b'{"alg":"RS256" }')[:-1] + b"R"),
    "header not JSON": resigned(base64(b"{alg:RS256}")),
    "header a list": resigned(base64(b'["RS256"]')),
    "header with a repeated alg": resigned(base64(b'{"alg":"none","alg":"RS256"}')),
    "header with an escaped repeated alg": resigned(base64(b'{"\\u0061lg":"none","alg":"RS256"}')),
    "header with a byte order mark": resigned(base64(b'\xef\xbb\xbf{"alg":"RS256"}')),
    "header in UTF-16": resigned(base64('{"alg":"RS256"}'.encode("utf-16"))),
    "header with NaN": resigned(base64(b'{"alg":"RS256","a":NaN}')),
    "header deep": resigned(base64(b'{"alg":"RS256","a":' + b"[" * 500 + b"]" * 500 + b"}")),
    "payload a string": token(header=header(), payload=b'"x"'),
    "payload deep": with_text('"a": ' + "[" * 500 + "]" * 500),
    "payload with a repeated claim": with_text('"tenant": "other"'),
    "payload with a repeated claim within": with_text('"a": {"b": 1, "b": 2}'),
    "payload with 1e400": with_text('"a": 1e400'),
    "exp missing": claiming(exp=None),
    "exp past": claiming(exp=NOW - 31),
    "exp a string": claiming(exp=str(NOW + 300)),
    "exp a fraction": claiming(exp=NOW + 300.5),
    "exp negative": claiming(exp=-1),
    "exp true": claiming(exp=True),
    "exp a list": claiming(exp=[NOW + 300]),
    "exp 1e400": token(header=header(), payload=json.dumps(claims()).replace(str(NOW + 300), "1e400").encode()),
    "exp 1e10": token(header=header(), payload=json.dumps(claims()).replace(str(NOW + 300), "1e10").encode()),
    "exp beyond 64 bits": claiming(exp=2**70),
    "nbf later": claiming(nbf=NOW + 31),
    "nbf a string": claiming(nbf="0"),
    "iat later": claiming(iat=NOW + 31),
    "iat a string": claiming(iat="0"),
    "iss missing": claiming(iss=None),
    "iss of another": claiming(iss="https://attacker.example/"),
    "iss without its slash": claiming(iss=ISSUER[:-1]),
    "iss a list": claiming(iss=[ISSUER]),
    "iss another of ours, whose key it is not": claiming(iss=ANY_EC),
    "aud missing": claiming(aud=None),
    "aud of another": claiming(aud="other"),
    "aud empty": claiming(aud=[]),
    "aud with a number": claiming(aud=[AUDIENCE, 1]),
    "aud an object": claiming(aud={AUDIENCE: 1}),
    "aud with 65 names": claiming(aud=[AUDIENCE] * 65),
    "sub a number": claiming(sub=1),
    "sub long": claiming(sub="a" * 300),
    "tenant missing": claiming(tenant=None),
    "tenant a path": claiming(tenant="../other"),
    "tenant a queue": claiming(tenant="openhqm-requests:x"),
    "tenant with capitals": claiming(tenant="Shop"),
    "tenant empty": claiming(tenant=""),
    "tenant a list": claiming(tenant=["shop"]),
    "9 KiB": claiming(filling="a" * 9 * 1024),
    "many": b"." * 100_000,
    "the secret of HS256 for the issuer of RS256": token(SECRET, header(alg="HS256")),
    "RS256 for the issuer of HS256": claiming(iss=SHARED),
}


@attrs.define
class Wall:
    """The time of day."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


class TokensTests(SynchronousTestCase):
    """`Tokens`"""

    def setUp(self) -> None:
        self.clock, self.wall = Clock(), Wall()
        self.keys = FixedKeys(keys())
        curve = read_key_set(jwks(jwk(ec_key(), "one"), jwk(ed_key())))
        others = attrs.evolve(RULES, issuer=ANY_EC, algorithms=["ES256", "EdDSA"])
        shared = attrs.evolve(RULES, issuer=SHARED, algorithms=["HS256"])
        issuers = [
            Issuer(RULES, self.keys),
            Issuer(others, FixedKeys(curve)),
            Issuer(shared, FixedKeys([shared_key(SECRET, ["HS256"])])),
        ]
        self.tokens = Tokens(issuers, self.clock.seconds, self.wall)

    def test_good(self) -> None:
        """A token has its tenant, its roles and its subject, with each kind of key, with a kid and without."""
        caller = Caller("shop", BOTH, "jwt:ada")
        ours = claims(iss=ANY_EC)
        for each in (
            good(),
            good(kid="two") and token(rsa_key(number=1), header(kid="two")),
            token(),
            good(typ="at+jwt"),
            good(x5t="abc"),
            claiming(aud=["other", AUDIENCE]),
            claiming(nbf=NOW + 30, iat=NOW + 30),
            claiming(exp=NOW - 29),
            claiming(scope=["submit", "read", "unknown", 1]),
            token(ec_key(), {"alg": "ES256", "kid": "one"}, ours),
            token(ed_key(), {"alg": "EdDSA", "kid": "any"}, ours),
            token(SECRET, {"alg": "HS256"}, claims(iss=SHARED)),
        ):
            self.assertEqual(self.tokens.caller(each), caller, each)

    def test_attacks(self) -> None:
        """None of the table is good, and none of it is remembered."""
        for name, attack in ATTACKS.items():
            for _ in range(2):
                self.assertIsNone(self.tokens.caller(attack), name)

    def test_attacks_after_a_good_one(self) -> None:
        """That a good token is remembered helps none of the table."""
        self.assertIsNotNone(self.tokens.caller(good()))
        for name, attack in ATTACKS.items():
            self.assertIsNone(self.tokens.caller(attack), name)

    def test_key_for_one_algorithm(self) -> None:
        """A key whose set says RS256 verifies nothing else, also where the issuer may use more."""
        rules = attrs.evolve(RULES, algorithms=["RS256", "RS512"])
        tokens = Tokens([Issuer(rules, self.keys)], self.clock.seconds, self.wall)
        self.assertIsNotNone(tokens.caller(by_pyjwt(1, "two", "RS512")))
        self.assertIsNotNone(tokens.caller(by_pyjwt(0, "one", "RS256")))
        self.assertIsNone(tokens.caller(by_pyjwt(0, "one", "RS512")))

    def test_changed_anywhere(self) -> None:
        """No character of a good token can be changed."""
        whole = good()
        for index in range(len(whole)):
            other = b"A" if whole[index : index + 1] != b"A" else b"B"
            changed = whole[:index] + other + whole[index + 1 :]
            self.assertIsNone(self.tokens.caller(changed), index)

    def test_expires_while_remembered(self) -> None:
        """A token is good until it expires, and not for longer because it was good before."""
        whole = good()
        self.wall.now = NOW + 329
        self.assertIsNotNone(self.tokens.caller(whole))
        self.wall.now = NOW + 330
        self.assertIsNone(self.tokens.caller(whole))

    def test_key_taken_back(self) -> None:
        """A token that is remembered is not good any more within a second of its key being gone."""
        whole = good()
        self.assertIsNotNone(self.tokens.caller(whole))
        self.keys.keys, self.keys.generation = [each for each in keys() if each.key_id != "one"], 1
        self.clock.advance(1)
        self.assertIsNone(self.tokens.caller(whole))

    def test_remembered(self) -> None:
        """A verified token costs no signature again, and what is remembered is bounded."""
        whole = good()
        self.tokens.caller(whole)
        self.keys.keys = ()  # without a new generation: what is remembered does not look
        self.assertIsNotNone(self.tokens.caller(whole))
        self.patch(__import__("openhqm.ingress.tokens", fromlist=["x"]), "MOST_REMEMBERED", 3)
        self.keys.keys = keys()
        for number in range(9):
            self.tokens.caller(claiming(jti=str(number)))
        self.assertEqual(len(self.tokens._known), 3)
        self.assertLessEqual(3, MOST_REMEMBERED)
