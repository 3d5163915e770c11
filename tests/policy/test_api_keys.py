"""How a key looks, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.api_keys import (
    Key,
    Role,
    check_tenant,
    digest_of,
    is_key,
    new_key,
    read_keys,
    write_keys,
)

ENTRY = {
    "id": "0123456789ab",
    "digest": "ab" * 32,
    "tenant": "acme",
    "roles": ["submit"],
    "created": 1,
    "expires": None,
}


class FormTests(SynchronousTestCase):
    """`new_key` and `is_key`"""

    def test_form(self) -> None:
        """A key has its prefix, 256 random bits and a checksum, also of the smallest and the largest number."""
        made = {new_key(secrets.token_bytes) for _ in range(100)}
        self.assertEqual(len(made), 100)
        for key in (*made, new_key(bytes), new_key(lambda count: b"\xff" * count)):
            self.assertRegex(key, r"\Aohqm_[0-9A-Za-z]{49}\Z")
            self.assertTrue(is_key(key), key)

    def test_checksum(self) -> None:
        """A key with one other character, one less or one more is none."""
        key = new_key(secrets.token_bytes)
        for index in range(len("ohqm_"), len(key)):
            other = "b" if key[index] == "a" else "a"
            self.assertFalse(is_key(key[:index] + other + key[index + 1 :]), index)
        for wrong in (key[:-1], key + "a", key + "\n", " " + key, key.replace("ohqm_", "ohqn_"), "", "ohqm_"):
            self.assertFalse(is_key(wrong), wrong)

    def test_digest(self) -> None:
        """What is kept is the SHA-256 of the whole key."""
        key = new_key(secrets.token_bytes)
        self.assertEqual(digest_of(key), hashlib.sha256(key.encode()).hexdigest())

    def test_tenant(self) -> None:
        """A tenant may be part of the name of a queue, and nothing that is a path or another queue's name."""
        for good in ("acme", "a", "0-1", "a" * 63):
            self.assertEqual(check_tenant(good), good)
        for bad in ("", "A", "a.b", "a/b", "../a", "-a", "a\n", "a b", "a" * 64, "ä"):
            self.assertRaises(ValueError, check_tenant, bad)


class FileTests(SynchronousTestCase):
    """`read_keys` and `write_keys`"""

    def test_round(self) -> None:
        """What is written is read, and holds no key."""
        keys = [
            Key("0123456789ab", "ab" * 32, "acme", frozenset({Role.SUBMIT, Role.READ}), 10, None),
            Key("0123456789ac", "ac" * 32, "other", frozenset(Role), 10, 20),
        ]
        self.assertEqual(read_keys(write_keys(keys)), keys)
        self.assertTrue(keys[1].is_live(19.9))
        self.assertFalse(keys[1].is_live(20))
        self.assertNotIn("ab" * 32, repr(keys[0]))

    def test_wrong(self) -> None:
        """A file with anything else is refused, and the complaint repeats nothing of it."""
        changes: list[dict[str, Any]] = [
            {"id": "../x"},
            {"digest": "ab"},
            {"digest": 1},
            {"tenant": "A/b"},
            {"roles": []},
            {"roles": ["root"]},
            {"roles": 1},
            {"created": "1"},
            {"expires": "never"},
            {"expires": True},
            {"more": 1},
        ]
        wrong = [json.dumps({"keys": [{**ENTRY, **change}]}) for change in changes]
        wrong += ["", "[]", "{", '{"keys": {}}', '{"keys": [1]}', json.dumps({"keys": [ENTRY, ENTRY]}), "[" * 100_000]
        for text in wrong:
            error = self.assertRaises(ValueError, read_keys, text)
            self.assertNotIn("abab", str(error))
        self.assertEqual(len(read_keys(json.dumps({"keys": [ENTRY]}))), 1)
