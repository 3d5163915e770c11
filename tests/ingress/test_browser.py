"""Pages of other origins in a real browser, where ``TEST_CHROMIUM`` names the program."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from openhqm.policy.api_keys import Role
from tests.ingress.test_access import made, write
from tests.servers import Server, free_port

CHROMIUM = os.environ.get("TEST_CHROMIUM")
SECONDS = 120
PAGE = """<script>
const keyed = "http://127.0.0.1:%d", open = "http://127.0.0.1:%d", id = "%s", found = {};
const fields = {"Authorization": "Bearer %s", "Content-Type": "application/json", "Idempotency-Key": "a-page"};
async function step(name, work) { try { found[name] = await work(); } catch (error) { found[name] = "refused"; } }
function events() {
  return new Promise((resolve, reject) => {
    const source = new EventSource(open + "/api/v1/events/" + id);
    source.addEventListener("completed", event => { source.close(); resolve(JSON.parse(event.data).status); });
    source.onerror = reject;
  });
}
function endings() {
  return new Promise((resolve, reject) => {
    const source = new EventSource(open + "/api/v1/events?id=" + id), told = [];
    source.addEventListener("completed", event => told.push(JSON.parse(event.data).status));
    source.addEventListener("reset", event => told.push("reset"));
    source.onerror = () => { if (source.readyState == EventSource.CLOSED) told.length ? resolve(told) : reject(); };
  });
}
function socket() {
  return new Promise((resolve, reject) => {
    const key = fields.Authorization.slice(7), url = keyed.replace("http", "ws") + "/api/v1/ws";
    const socket = new WebSocket(url, ["openhqm", "openhqm.key." + key]);
    socket.onopen = () => socket.send('{"ref": 1, "submit": {"payload": "by socket"}}');
    socket.onerror = reject;
    socket.onmessage = message => {
      const said = JSON.parse(message.data);
      if (said.accepted) socket.send(JSON.stringify({ref: 2, subscribe: [said.accepted.correlation_id]}));
      if (said.event == "completed") { socket.close(); resolve([socket.protocol, said.data.result]); }
    };
  });
}
(async () => {
  let mine;
  await step("submit", async () => {
    const options = {method: "POST", headers: fields, body: '{"payload": "hello"}'};
    const answer = await fetch(keyed + "/api/v1/submit", options);
    mine = (await answer.json()).correlation_id;
    return [answer.status, answer.headers.get("Location")];
  });
  await step("response", async () => {
    const answer = await fetch(keyed + "/api/v1/response/" + mine + "?wait=20", {headers: fields});
    return (await answer.json()).result;
  });
  await step("stream", async () => {
    const answer = await fetch(keyed + "/api/v1/events/" + mine, {headers: fields});
    return (await answer.text()).includes("event: completed");
  });
  await step("without a key", async () => (await fetch(keyed + "/api/v1/status/" + mine)).status);
  await step("WebSocket", socket);
  await step("EventSource", events);
  await step("EventSource over ids", endings);
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


class Pages:
    """A web server whose page calls OpenHQM, and tells what came of it."""

    def __init__(self, port: int, page: Callable[[], str]) -> None:
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page().encode())

            def do_POST(self) -> None:
                pages.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self.found: dict[str, Any] | None = None
        self.url = f"http://127.0.0.1:{port}/"
        self.server = HTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class BrowserTests(SynchronousTestCase):
    """Chromium, and pages of two origins"""

    def setUp(self) -> None:
        if CHROMIUM is None:
            raise SkipTest("TEST_CHROMIUM names no program")
        self.directory = Path(self.mktemp()).absolute()
        self.secret, key = made("a", frozenset({Role.SUBMIT, Role.READ}))
        ports = free_port(), free_port()
        cors = json.dumps({"origins": [f"http://127.0.0.1:{ports[0]}"]})
        servers = []
        for name, auth in (("keyed", "api_key"), ("open", "none")):
            place = self.directory / name
            place.mkdir(parents=True)
            write(place / "keys.json", key)
            environment = {"OPENHQM_AUTH__KEYS_FILE": str(place / "keys.json")} if auth == "api_key" else {}
            server = Server(
                place, OPENHQM_QUEUE__TYPE="memory", OPENHQM_CORS=cors, OPENHQM_AUTH__TYPE=auth, **environment
            )
            server.start()
            self.addCleanup(server.stop)
            servers.append(server)
        keyed, opened = servers
        id = json.loads(opened.ask("POST", "/api/v1/submit", {"payload": 1})[2])["correlation_id"]
        text = PAGE % (keyed.port, opened.port, id, self.secret)
        self.known, self.other = (Pages(port, lambda: text) for port in ports)
        self.addCleanup(self.known.close)
        self.addCleanup(self.other.close)

    def visit(self, pages: Pages) -> dict[str, Any]:
        """Have the browser open the page, and return what that found."""
        assert CHROMIUM is not None
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            command = [CHROMIUM, *options, f"--user-data-dir={profile}", pages.url]
            with (self.directory / "browser").open("ab") as log:
                browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                deadline = time.monotonic() + SECONDS
                while pages.found is None and time.monotonic() < deadline and browser.poll() is None:
                    time.sleep(0.05)  # asking again until the deadline
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(browser.pid, 9)
                browser.wait()
        assert pages.found is not None, (self.directory / "browser").read_text(errors="replace")
        return pages.found

    def test_known(self) -> None:
        """A page of a configured origin submits, waits, reads events in each way, sees refusals."""
        found = self.visit(self.known)
        status, location = found.pop("submit")
        self.assertEqual(status, 202)
        self.assertIn("/api/v1/response/", location)
        expected = {"response": "hello", "stream": True, "without a key": 401, "EventSource": "COMPLETED"}
        # Told once: it comes back with the cursor, and stops on the 204.
        self.assertEqual(
            found, {**expected, "EventSource over ids": ["COMPLETED"], "WebSocket": ["openhqm", "by socket"]}
        )

    def test_other(self) -> None:
        """A page of another origin gets nothing, with the key and without."""
        self.assertEqual(set(self.visit(self.other).values()), {"refused"})
