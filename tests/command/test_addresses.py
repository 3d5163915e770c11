"""Where the process of a configuration is found."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.command.addresses import default_url
from openhqm.errors import ConfigurationError


class AddressTests(SynchronousTestCase):
    def test_default(self) -> None:
        """Without a configuration it is where a process without a configuration listens."""
        self.assertEqual(default_url(None, {}), "http://127.0.0.1:8000")

    def test_host_and_port(self) -> None:
        """Those of the configuration; where it listens everywhere, it is loopback."""
        for host, port, url in (
            ("127.0.0.1", "9000", "http://127.0.0.1:9000"),
            ("0.0.0.0", "8000", "http://127.0.0.1:8000"),
            ("::", "8000", "http://[::1]:8000"),
            ("::1", "8000", "http://[::1]:8000"),
            ("localhost", "80", "http://localhost:80"),
        ):
            variables = {"OPENHQM_SERVER__HOST": host, "OPENHQM_SERVER__PORT": port, "OPENHQM_AUTH__TYPE": "none"}
            self.assertEqual(default_url(None, variables), url)

    def test_secure(self) -> None:
        """A process with TLS is asked over https."""
        variables = {"OPENHQM_SERVER__TLS": '{"cert": "a.pem", "key": "a.key"}'}
        self.assertEqual(default_url(None, variables), "https://127.0.0.1:8000")
        variables["OPENHQM_SERVER__ENDPOINTS"] = '["tcp6:9001:interface=\\\\:\\\\:1"]'
        self.assertEqual(default_url(None, variables), "https://[::1]:9001")

    def test_endpoints(self) -> None:
        """The first endpoint of a kind that a client can connect to."""
        for endpoints, url in (
            (["unix:/run/openhqm.sock"], "unix:/run/openhqm.sock"),
            (["unix:address=/run/a\\:b:mode=660"], "unix:/run/a:b"),
            (["tcp:9001:interface=127.0.0.1"], "http://127.0.0.1:9001"),
            (["tcp:port=9001"], "http://127.0.0.1:9001"),
            (["tcp6:9001:interface=\\:\\:1"], "http://[::1]:9001"),
            (["systemd:domain=INET:index=0", "unix:/run/x"], "unix:/run/x"),
        ):
            variables = {"OPENHQM_SERVER__ENDPOINTS": json.dumps(endpoints), "OPENHQM_AUTH__TYPE": "none"}
            self.assertEqual(default_url(None, variables), url, endpoints)
        variables = {"OPENHQM_SERVER__ENDPOINTS": '["systemd:domain=INET:index=0"]', "OPENHQM_AUTH__TYPE": "none"}
        self.assertIn("--url", str(self.assertRaises(ValueError, default_url, None, variables)))

    def test_no_server(self) -> None:
        """A process that answers no HTTP cannot be asked, and it is said which can."""
        error = self.assertRaises(ValueError, default_url, None, {"OPENHQM_SERVER__ENABLED": "false"})
        self.assertIn("ask another process", str(error))

    def test_file(self) -> None:
        """The configuration of a file, and what is wrong with it."""
        path = Path(tempfile.mkdtemp()) / "cfg.yaml"
        path.write_text("server: {port: 8123}\n")
        self.assertEqual(default_url(str(path), {}), "http://127.0.0.1:8123")
        path.write_text("server: {ports: 8123}\n")
        self.assertRaises(ConfigurationError, default_url, str(path), {})
