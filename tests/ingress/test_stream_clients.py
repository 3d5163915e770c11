"""Event streams as independent clients read them through nginx with its defaults: npm's eventsource, and httpx-sse."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, connect_sse
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.servers import Server, free_port

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{to}; }}
  }}
}}
"""
# As docs/streams.md has it: a 502 of the proxy ends an EventSource for good, and the page makes another one.
PAGE = """
const {EventSource} = require(process.argv[2]), url = process.argv[3];
const say = (...said) => console.log(JSON.stringify(said));
let seen = "";
function listen() {
  const source = new EventSource(url + (seen && "&last_event_id=" + seen));
  source.addEventListener("cursor", event => { seen = event.lastEventId; say("cursor"); });
  for (const name of ["completed", "failed", "reset", "expired"])
    source.addEventListener(name, event => {
      seen = event.lastEventId;
      say(name, JSON.parse(event.data).correlation_id);
    });
  source.addEventListener("error", event => {
    if (source.readyState != source.CLOSED) return;
    if (event.code == 204) say("no more"); else setTimeout(listen, 200);
  });
}
listen();
"""
SECONDS = 60


def found(path: str | None, way_out: str) -> str:
    """``path``, if it is there; otherwise these tests are skipped, and fail in CI."""
    if path is not None and os.path.exists(path):
        return path
    if os.environ.get("CI") == "true":
        raise AssertionError(way_out)
    raise SkipTest(way_out)


class Page:
    """A program in Node that follows a stream by npm's eventsource; ``said`` is what it has printed."""

    def __init__(self, case: SynchronousTestCase, directory: Path, url: str) -> None:
        place = os.environ.get("TEST_EVENTSOURCE", "/var/tmp/openhqm-eventsource")
        module = found(f"{place}/node_modules/eventsource", f"npm install --prefix {place} eventsource@3.0.7")
        node = found(shutil.which("node"), "apt-get install nodejs")
        script = directory / "page.cjs"
        script.write_text(PAGE)
        self.said: list[Any] = []
        self.process = subprocess.Popen([node, str(script), module, url], stdout=subprocess.PIPE)
        case.addCleanup(self.process.wait)
        case.addCleanup(self.process.kill)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def told(self) -> list[Any]:
        """What it was told, but for where it stands."""
        return [each for each in self.said if each != ["cursor"]]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))


class StreamClientTests(SynchronousTestCase):
    """A process on the embedded file, and nginx before it"""

    def setUp(self) -> None:
        nginx = found(shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "apt-get install nginx-light")
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.server = Server(self.directory)
        self.server.start()
        self.addCleanup(lambda: self.server.process and self.server.process.poll() is None and self.server.kill())
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api/v1/events"
        path = self.directory / "nginx.conf"
        path.write_text(NGINX.format(directory=self.directory, port=port, to=self.server.port))
        process = subprocess.Popen([nginx, "-e", str(self.directory / "nginx.log"), "-c", str(path)])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.server.until(lambda: socket.create_connection(("127.0.0.1", port)).close() is None, "no nginx")

    def next_of(self, events: Any, *names: str) -> ServerSentEvent:
        """The next event with one of ``names``. httpx-sse has one for ``retry`` alone, too."""
        return next(event for event in events if event.event in names)

    def test_httpx_sse(self) -> None:
        """Each event comes through nginx when it happens. A client that was away gets what it has missed."""
        with httpx.Client(timeout=20) as client:
            with connect_sse(client, "GET", self.url, params={"tag": "t"}) as source:
                events = source.iter_sse()
                self.next_of(events, "cursor")
                first = self.server.submit(1, tags=["t"])
                told = self.next_of(events, "completed", "reset")
                self.assertEqual((told.event, told.json()["correlation_id"]), ("completed", first))
            missed = self.server.submit(2, tags=["t"])
            self.server.response(missed)
            seen = {"Last-Event-ID": told.id}
            with connect_sse(client, "GET", self.url, params={"tag": "t"}, headers=seen) as source:
                told = self.next_of(source.iter_sse(), "completed", "reset")
                self.assertEqual((told.event, told.json()["correlation_id"]), ("completed", missed))
            with connect_sse(client, "GET", f"{self.url}/{first}") as source:
                whole = [event for event in source.iter_sse() if event.data]
            self.assertEqual([event.event for event in whole], ["pending", "processing", "completed"])
            self.assertEqual([event.id for event in whole], ["1", "2", "3"])
            again = client.get(f"{self.url}/{first}", headers={"Last-Event-ID": "3"})
            self.assertEqual(again.status_code, 204)

    def test_eventsource(self) -> None:
        """An EventSource is told of each of its requests once, over a kill -9 of the process, and stops by itself."""
        ids = [self.server.submit(number) for number in range(2)]
        later = self.server.submit("later", delay=2)
        page = Page(self, self.directory, f"{self.url}?id={ids[0]}&id={ids[1]}&id={later}")
        # What had ended before has no cursor of its own: the one behind it says that the client has read it.
        self.server.until(lambda: len(page.told) == 2 and page.said[-1] == ["cursor"], "what has ended was not told")
        self.server.kill()
        self.server.start()
        deadline = time.monotonic() + SECONDS
        while ["no more"] not in page.said and time.monotonic() < deadline:
            time.sleep(0.05)  # asking again until the deadline
        self.assertEqual(sorted(page.told[:2]), sorted(["completed", id] for id in ids))
        self.assertEqual(page.told[2:], [["completed", later], ["no more"]])
