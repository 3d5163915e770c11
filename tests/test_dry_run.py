"""The dry run: what it prints, and its exit code."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.routing import Route, Routing
from openhqm.dry_run import SAMPLE_ID, dry_run
from openhqm.options import OpenHQMOptions

ORDERS = Route(
    name="orders",
    match_field="payload.type",
    match_value="order",
    endpoint="billing",
    method="PUT",
    timeout=30.0,
    transform_type="template",
    transform='{"id": {{ payload.id }}, "for": {{ correlation_id }}}',
    header_mappings={"X-Tenant": "metadata.tenant", "X-None": "metadata.nothing"},
    query_params={"kind": "headers.X-Kind"},
)
ORDER = {"payload": {"type": "order", "id": 7}, "metadata": {"tenant": "acme"}, "headers": {"x-kind": "new"}}


class DryRunTests(SynchronousTestCase):
    """`dry_run`"""

    def dry_run(self, sample: Any, *routes: Route) -> tuple[int, str, str]:
        """The exit code, standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        text = sample if isinstance(sample, bytes) else json.dumps(sample).encode()
        return dry_run(Routing(list(routes)), "-", 1000.0, io.BytesIO(text), out, err), out.getvalue(), err.getvalue()

    def test_everything(self) -> None:
        """The route, its endpoint, what is mapped, and then the content."""
        self.assertEqual(
            self.dry_run(ORDER, ORDERS),
            (
                0,
                "route: orders\nendpoint: billing\nmethod: PUT\ntimeout: 30 s\nheader: X-Tenant: acme\n"
                "query: kind=new\ncontent: application/json\n\n"
                f'{{"id": 7, "for": "{SAMPLE_ID}"}}\n',
                "",
            ),
        )

    def test_default_route(self) -> None:
        """The default route is marked, and what it leaves open is taken from the endpoint."""
        code, out, err = self.dry_run({"payload": [1.10]}, ORDERS, Route(name="rest", is_default=True))
        self.assertEqual((code, err), (0, ""))
        self.assertIn("route: rest (the default)\n", out)
        self.assertIn("method: as the endpoint has it\n", out)
        self.assertTrue(out.endswith("\n\n[1.1]\n"), out)

    def test_no_route(self) -> None:
        """Without a matching route the payload stays as it is."""
        for routes in ([], [ORDERS]):
            code, out, err = self.dry_run(b'{"payload": {"a" : 1.10}}', *routes)
            self.assertEqual((code, err), (0, ""))
            self.assertTrue(out.startswith("route: none"))
            self.assertTrue(out.endswith('\n\n{"a" : 1.10}\n'))

    def test_default_endpoint(self) -> None:
        """Where no route names an endpoint, that of ``proxy.default_endpoint`` is shown."""
        for routes in ([], [Route(name="rest", is_default=True)]):
            out = io.StringIO()
            dry_run(Routing(routes), "-", 1000.0, io.BytesIO(b'{"payload": 1}'), out, io.StringIO(), "billing")
            self.assertIn("endpoint: billing (proxy.default_endpoint)\n", out.getvalue())

    def test_a_bad_sample(self) -> None:
        """A sample that the server would refuse is one line on standard error, with the reason, and exit code 1."""
        for sample, expected in (
            (b"nonsense", "standard input: is not JSON"),
            (b"", "standard input: is not JSON"),
            (b"\xff", "standard input: is not JSON"),
            ({}, "standard input: payload: is missing"),
            ({"payload": 1, "prefix": 2}, "standard input: prefix: unknown field"),
            ({"payload": 1, "headers": {"X": "a\r\nb"}}, "standard input: headers.X: "),
        ):
            code, out, err = self.dry_run(sample, ORDERS)
            self.assertEqual((code, out, err.count("\n")), (1, "", 1), err)
            self.assertTrue(err.startswith(f"openhqm: {expected}"), err)

    def test_transform_failed(self) -> None:
        """A request that its route cannot transform is the line that the worker would log, and exit code 1."""
        code, out, err = self.dry_run({"payload": {"type": "order"}}, ORDERS)
        self.assertEqual((code, out), (1, ""))
        self.assertEqual(err, "openhqm: route orders: the template needs payload.id, which the request does not have\n")

    def test_escaped(self) -> None:
        """A line break or an escape sequence in the sample is escaped."""
        route = Route(name="a", is_default=True, query_params={"q": "q"})
        _, out, _ = self.dry_run({"payload": {"q": "a\nroute: b\x1b[2J"}}, route)
        self.assertIn("query: q=a\\nroute: b\\u001b[2J\n", out)

    def test_a_delayed_request(self) -> None:
        """A sample may name a time to begin, which is checked as at the door."""
        sample = {"payload": 1, "metadata": {"not_before": "1970-01-01T01:00:00Z"}}
        self.assertEqual(self.dry_run(sample)[0], 0)


class CommandLineTests(SynchronousTestCase):
    """``twistd openhqm --dry-run``"""

    def run_with(self, *arguments: str) -> object:
        """The exit code; the output is in ``out`` and ``err``."""
        self.out, self.err = io.StringIO(), io.StringIO()
        with redirect_stdout(self.out), redirect_stderr(self.err):
            return self.assertRaises(SystemExit, OpenHQMOptions().parseOptions, list(arguments)).code

    def test_a_file(self) -> None:
        """The sample is read from a file. No database is opened and no service started."""
        sample, config = Path(self.mktemp()), Path(self.mktemp())
        sample.write_text('{"payload": 1}')
        proxy = "proxy: {enabled: true, default_endpoint: 'http://127.0.0.1:1'}"
        config.write_text(f"routing: {{routes: [{{name: a, is_default: true}}]}}\n{proxy}")
        self.assertEqual(self.run_with("--config", str(config), "--dry-run", str(sample)), 0)
        self.assertEqual(self.out.getvalue().splitlines()[0], "route: a (the default)")
        self.assertFalse(Path("openhqm-data").exists())

    def test_no_file(self) -> None:
        """A file that does not exist, or a configuration with errors, ends with 1."""
        self.assertEqual(self.run_with("--dry-run", str(Path(self.mktemp()) / "nothing")), 1)
        self.assertIn("nothing: cannot be read: No such file or directory\n", self.err.getvalue())
        config = Path(self.mktemp())
        config.write_text("routing: {routes: [{name: a}]}")
        self.assertEqual(self.run_with("--config", str(config), "--dry-run", "-"), 1)
        self.assertIn("routing.routes.0.match_field", self.err.getvalue())
