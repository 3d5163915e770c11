"""Files with secrets that the configuration names, and that others can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from openhqm.backends import PRODUCTS
from openhqm.config.records import settings_record
from openhqm.config.structure import Tagged, records_of
from openhqm.errors import ConfigurationError
from tests.config.test_config import ConfigCase

ENDPOINT = {"url": "https://a.test"}
# What names a file with a secret, and its key.
NAMED: tuple[tuple[Any, str], ...] = (
    ({"proxy": {"enabled": True, "endpoints": {"a": {**ENDPOINT, "tls": {"cert": "c", "key": "FILE"}}}}}, "key"),
    ({"proxy": {"enabled": True, "endpoints": {"a": {**ENDPOINT, "tls": {"cert": "FILE"}}}}}, "cert"),
    (
        {
            "proxy": {
                "enabled": True,
                "endpoints": {"a": {**ENDPOINT, "auth_type": "bearer", "auth_token_file": "FILE"}},
            }
        },
        "",
    ),
    ({"queue": {"type": "redis", "redis_url_file": "FILE"}}, "redis_url_file"),
    ({"queue": {"type": "rabbitmq", "connection": {"rabbitmq": {"url_file": "FILE"}}}}, "url_file"),
    ({"queue": {"type": "kafka", "connection": {"kafka": {"security": {"cert": "c", "key": "FILE"}}}}}, "key"),
    ({"queue": {"type": "mqtt", "connection": {"mqtt": {"tls": {"cert": "c", "key": "FILE"}}}}}, "key"),
    ({"queue": {"type": "gcp_pubsub", "connection": {"gcp_pubsub": {"credentials_path": "FILE"}}}}, "credentials_path"),
    ({"brokers": {"b": {"type": "mqtt", "username": "u", "password_file": "FILE"}}}, "password_file"),
    ({"brokers": {"b": {"type": "mqtt", "tls": {"cert": "c", "key": "FILE"}}}}, "key"),
    ({"admin": {"port": 8001, "key_file": "FILE"}}, "key_file"),
)


class PrivateTests(ConfigCase):
    def test_open_to_others(self) -> None:
        """Each file with a secret is refused by its key, with the cure, and taken where it is private."""
        path = Path(self.mktemp()).absolute()
        path.write_text("redis://a-secret-of-32-characters-and-more")
        for document, key in NAMED:
            text = json.dumps(document).replace("FILE", str(path))
            for mode in (0o644, 0o604, 0o660):
                path.chmod(mode)
                error = self.assertRaises(ConfigurationError, self.load, text)
                found = [each for each in error.complaints if "chmod 640" in each.reason]
                self.assertEqual(len(found), 1, text)
                self.assertTrue(found[0].key.endswith(key), found[0].key)
                self.assertIn(str(path), found[0].reason)
            for mode in (0o600, 0o640, 0o440):
                path.chmod(mode)
                try:
                    self.load(text)
                except Exception as error:  # what else is wrong with it is no matter of the file
                    self.assertNotIn("chmod", str(error))

    def test_not_a_secret(self) -> None:
        """A file with something else may be open, and one that is missing is complained of where it is read."""
        path = Path(self.mktemp()).absolute()
        path.write_text("jobs")
        path.chmod(0o644)
        self.assertEqual(self.load(f"queue: {{request_queue_file: {path}}}").queue.request_queue, "jobs")
        tls = json.dumps({**ENDPOINT, "tls": {"cert": "/nowhere/c", "key": "/nowhere/k"}})
        self.load(f"proxy: {{enabled: true, endpoints: {{a: {tls}}}}}")

    def test_every_key(self) -> None:
        """Every setting called key beside a cert names a private file, or is read as one where TLS is made."""
        read_elsewhere = {"ServerTLSFiles"}  # tests/ingress/test_tls.py
        for record in _records(settings_record(PRODUCTS)):
            fields = {field.name: field for field in attrs.fields(record)}
            if {"cert", "key"} <= fields.keys() and record.__name__ not in read_elsewhere:
                self.assertTrue(fields["key"].metadata.get("private"), record)


def _records(record: Any, known: set[Any] | None = None) -> set[Any]:
    """The record, and all that can stand in it."""
    import typing

    known = set() if known is None else known
    if isinstance(record, type) and issubclass(record, Tagged) and record is not Tagged:
        for each in records_of(record).values():
            _records(each, known)
    elif isinstance(record, type) and attrs.has(record):
        if record not in known:
            known.add(record)
            for hint in typing.get_type_hints(record).values():
                _records(hint, known)
    else:
        for each in typing.get_args(record):
            _records(each, known)
    return known
