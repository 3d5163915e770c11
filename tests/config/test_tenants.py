"""What an operator decides about tenants."""

from __future__ import annotations

import json

from tests.config.test_config import ConfigCase

KEYS = "auth: {type: api_key, keys_file: keys.json}\n"
PROXY = "proxy: {enabled: true, endpoints: {billing: {url: 'http://a.test'}}}\n"
SECRET = "secrets: [hunter2hunter2]"


class TenantsTests(ConfigCase):
    def test_taken(self) -> None:
        """A row says what a tenant may use, and how much; without a row, and without a limit, it is anything."""
        text = "tenants: [{name: acme, endpoints: [billing], operations: [], limits: {requests_per_second: 0.5}}]"
        (row,) = self.load(KEYS + PROXY + text).tenants
        self.assertEqual((row.name, row.endpoints, row.operations), ("acme", ["billing"], []))
        self.assertEqual((row.limits.requests_per_second, row.limits.bytes_per_second), (0.5, None))
        self.assertEqual(self.load("").tenants, [])

    def test_refused(self) -> None:
        """What cannot be kept is refused by its key."""
        for text, key in (
            ("[{}]", "tenants"),
            ("[{name: ''}]", "tenants.0.name"),
            ("[{name: Acme}]", "tenants.0.name"),
            ("[{name: a/b}]", "tenants.0.name"),
            ("[{name: ../x}]", "tenants.0.name"),
            ("[{name: '**'}]", "tenants.0.name"),
            (json.dumps([{"name": "a" * 64}]), "tenants.0.name"),
            ("[{name: acme}, {name: acme}]", "tenants"),
            (json.dumps([{"name": f"a{number}"} for number in range(201)]), "tenants"),
            ("[{name: acme, wieght: 2}]", "tenants.0.wieght"),
            ("[{name: acme, endpoints: [nowhere]}]", "tenants.0.endpoints.0"),
            ("[{name: acme, endpoints: billing}]", "tenants.0.endpoints"),
            ("[{name: acme, weight: 0}]", "tenants.0.weight"),
            ("[{name: acme, weight: -1}]", "tenants.0.weight"),
            ("[{name: acme, weight: 1e9}]", "tenants.0.weight"),
            ("[{name: acme, weight: .nan}]", "tenants.0.weight"),
            ("[{name: acme, reserved: 1}]", "tenants.0.reserved"),
            ("[{name: acme, reserved: 0.5}, {name: b, reserved: 0.5}]", "tenants"),
            ("[{name: acme, limits: {requests_per_second: 0}}]", "tenants.0.limits.requests_per_second"),
            ("[{name: acme, limits: {requests_per_second: '5'}}]", "tenants.0.limits.requests_per_second"),
            ("[{name: acme, limits: {bytes_per_second: -1}}]", "tenants.0.limits.bytes_per_second"),
            ("[{name: acme, limits: {bytes: 5}}]", "tenants.0.limits.bytes"),
            ("{acme: {weight: 2}}", "tenants"),
        ):
            complaint = self.complaint(f"{KEYS}{PROXY}tenants: {text}")
            self.assertTrue(complaint.key == key or complaint.key.startswith(f"{key}."), (text, complaint))

    def test_unknown(self) -> None:
        """A key that names a tenant without a row is refused, unless there is a row for those."""
        hook = f"hooks: {{code: {{preset: github, {SECRET}, tenant: acmee}}}}\n"
        self.assertEqual(self.complaint(f"{KEYS}{hook}tenants: [{{name: acme}}]").key, "hooks.code.tenant")
        self.assertEqual(len(self.load(f"{KEYS}{hook}tenants: [{{name: acme}}, {{name: '*'}}]").tenants), 2)
        self.assertEqual(self.load(f"{KEYS}{hook}").tenants, [])

    def test_too_many_queues(self) -> None:
        """Each row makes a queue beside that of each endpoint, and there are bounds."""
        endpoints = {f"e{number}": {"url": "http://a.test"} for number in range(10)}
        proxy = json.dumps({"proxy": {"enabled": True, "endpoints": endpoints}})
        rows = json.dumps([{"name": f"a{number}"} for number in range(100)])
        complaint = self.complaint(f"{KEYS}tenants: {rows}\nproxy: {json.dumps(json.loads(proxy)['proxy'])}")
        self.assertEqual(complaint.key, "tenants")
        self.assertIn("1111 queues", complaint.reason)

    def test_queued(self) -> None:
        """Where a broker has the queue it is not known whose requests wait, and that limit is refused."""
        text = f"{KEYS}tenants: [{{name: acme, limits: {{queued: 5}}}}]\n"
        self.assertEqual(self.load(text).tenants[0].limits.queued, 5)
        self.assertEqual(len(self.load(f"{text}queue: {{type: redis}}").tenants), 1)
        self.assertEqual(self.complaint(f"{text}queue: {{type: rabbitmq}}").key, "tenants.0.limits.queued")

    def test_without_keys(self) -> None:
        """Where callers need no key their requests have no tenant, and a row would be for nothing."""
        for auth in ("", "auth: {type: none}\n"):
            self.assertEqual(self.complaint(f"{auth}tenants: [{{name: acme}}]").key, "tenants")
        hook = f"hooks: {{code: {{preset: github, {SECRET}, tenant: acme}}}}\n"
        self.assertEqual(len(self.load(f"{hook}tenants: [{{name: acme}}]").tenants), 1)
