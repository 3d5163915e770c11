"""Replace all processes of a fleet again and again under load: no connection is refused, and no request is lost.

    python -m tests.rolling [--rounds 50] [--backend redis]

Callers submit and poll, submit and wait, and submit and listen, each on a connection that stays open as long as the
server keeps it. None of them may see a connection refused or reset, or an unexpected status. A caller that waits has
the answer, or is told where it will be. A stream that ends too early is resumed where it ended, without an event lost
or seen twice. At the end no request was dead-lettered, no process died, and every acceptance was counted once.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.brokers import RabbitMQServer, RedisServer
from tests.fleet.fleets import FleetServer, backend_of, until

ENDS_WITHIN = 60.0
PROCESSES = 2
CALLERS = 2  # of each kind
SUBMIT = "/api/v1/submit"


class Broken(Exception):
    """A promise of OpenHQM was not kept."""


class Connects(Protocol):
    """What callers connect to."""

    def connection(self, timeout: float = 20) -> http.client.HTTPConnection:
        """A connection, for any number of requests."""


@contextmanager
def on_redis() -> Iterator[dict[str, str]]:
    """A Redis that syncs its append-only file every second, which is the usual setting. It is never killed here."""
    redis = RedisServer(appendfsync="everysec")
    try:
        redis.start()
        yield backend_of(redis)
    finally:
        redis.close()


@contextmanager
def on_rabbitmq() -> Iterator[dict[str, str]]:
    """A RabbitMQ, with its ledger in such a Redis."""
    rabbitmq = RabbitMQServer()
    try:
        rabbitmq.start()
        with on_redis() as settings:
            yield {
                "OPENHQM_QUEUE__TYPE": "rabbitmq",
                "OPENHQM_QUEUE__RABBITMQ_URL": rabbitmq.url,
                "OPENHQM_CACHE__TYPE": "redis",
                "OPENHQM_CACHE__REDIS_URL": settings["OPENHQM_QUEUE__REDIS_URL"],
            }
    finally:
        rabbitmq.close()


BACKENDS: dict[str, Callable[[], AbstractContextManager[dict[str, str]]]] = {
    "redis": on_redis,
    "rabbitmq": on_rabbitmq,
}
"""The backends for ``--backend``: each yields the settings that name it, and is closed at the end."""


class Caller:
    """A caller with one connection, which stays open as long as the server keeps it."""

    def __init__(self, server: Connects) -> None:
        self._connection = server.connection()

    def ask(self, method: str, path: str, payload: Any = None, **headers: str) -> http.client.HTTPResponse:
        """Send a request, and return the head of its answer. Errors of the connection are raised."""
        body = None if payload is None else json.dumps({"payload": payload})
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, body, headers)
        return self._connection.getresponse()

    def document(self, response: http.client.HTTPResponse, *statuses: int) -> tuple[int, dict[str, Any], str | None]:
        """Status, document and `Location` of an answer. `Broken` unless it has one of ``statuses``."""
        body = response.read()
        if response.status not in statuses:
            raise Broken(f"{response.status} instead of {statuses}: {body!r}")
        return response.status, json.loads(body), response.getheader("Location")


class Callers:
    """The callers in threads, and what they have seen."""

    def __init__(self, server: Connects) -> None:
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []
        self._server = server
        self._lock = threading.Lock()
        self._number = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(kind,))
            for kind in (self._poll, self._wait, self._listen)
            for _ in range(CALLERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each caller finish its last request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        if self.violations:
            raise Broken(self.violations[0])

    def _run(self, one: Callable[[Caller, int], None]) -> None:
        caller = Caller(self._server)
        while not self._stop.is_set() and not self.violations:
            with self._lock:
                self._number += 1
                number = self._number
            try:
                one(caller, number)
            except Exception as error:  # of any kind: it is reported as a violation
                self.violations.append(f"{one.__name__[1:]} {number}: {type(error).__name__}: {error}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1

    def _poll(self, caller: Caller, number: int) -> None:
        """Submit, and poll until there is an answer."""
        _, _, location = caller.document(caller.ask("POST", SUBMIT, {"n": number}), 202)
        self._count("accepted")
        self._look(caller, number, location, pause=0.05)

    def _wait(self, caller: Caller, number: int) -> None:
        """Submit and wait in one call. A caller without an answer is told where to poll."""
        response = caller.ask("POST", SUBMIT, {"n": number}, Prefer="wait=20")
        status, document, location = caller.document(response, 200, 202)
        self._count("accepted")
        if status == 200:
            self._check_answer(document, number)
        else:
            self._count("sent to polling")
            self._look(caller, number, location and f"{location}?wait=20", pause=0)

    def _look(self, caller: Caller, number: int, location: str | None, pause: float) -> None:
        if not location:
            raise Broken("a 202 without Location")
        deadline = time.monotonic() + ENDS_WITHIN
        while True:
            status, document, _ = caller.document(caller.ask("GET", location), 200, 202)
            if status == 200:
                return self._check_answer(document, number)
            if time.monotonic() > deadline:
                raise Broken(f"{location} has not ended: {document}")
            time.sleep(pause)

    def _listen(self, caller: Caller, number: int) -> None:
        """Submit and listen in one call. A stream that ends too early is resumed."""
        response = caller.ask("POST", SUBMIT, {"n": number}, Accept="text/event-stream")
        self._count("accepted")
        correlation_id, last = "", 0
        deadline = time.monotonic() + ENDS_WITHIN
        while True:
            if response.status != 200:
                raise Broken(f"{response.status} for a stream: {response.read()!r}")
            for event, number_of_event, document in events(response):
                if event == "accepted":
                    correlation_id = document["correlation_id"]
                    continue
                if number_of_event != last + 1:
                    raise Broken(f"{correlation_id}: event {number_of_event} after {last}")
                last = number_of_event
                if document["status"] not in ("PENDING", "PROCESSING"):
                    response.read()
                    return self._check_answer(document, number)
            if time.monotonic() > deadline:
                raise Broken(f"{correlation_id} has not ended")
            self._count("resumed")
            response = caller.ask("GET", f"/api/v1/events/{correlation_id}", **{"Last-Event-ID": str(last)})

    def _check_answer(self, document: dict[str, Any], number: int) -> None:
        if (document["status"], document["result"]) != ("COMPLETED", {"n": number, "square": number**2}):
            raise Broken(f"submission {number} ended wrongly: {document}")
        self._count("answered")


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The events of a stream until it ends: each has a name, a number (0: none) and data."""
    name, number, data = "", 0, ""
    while line := response.readline():
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "id":
            number = int(value)
        elif field == "data":
            data = value
        elif not field and data:
            yield name, number, json.loads(data)
            name, number, data = "", 0, ""


def run(rounds: int, backend: str = "redis", say: Callable[[str], object] = print) -> dict[str, int]:
    """Replace all processes ``rounds`` times, and return what was done. `Broken` where a promise is not kept."""
    directory = Path(tempfile.mkdtemp(prefix="openhqm-rolling-"))
    with BACKENDS[backend]() as settings:
        server = FleetServer(
            directory,
            settings,
            OPENHQM_SERVER__WORKERS=str(PROCESSES),
            OPENHQM_WORKER__HANDLER="tests.crash_handler:slowly",
        )
        try:
            server.start()
            done = _roll(server, rounds, say)
            if (code := server.stop()) != 0:
                raise Broken(f"SIGTERM ended it with {code}")
        except (Broken, AssertionError):
            say(f"the log is left in {directory}")
            raise
        finally:
            if server.process is not None and server.process.poll() is None:
                server.kill()  # its child processes notice, and stop
    shutil.rmtree(directory)
    return done


def _roll(server: FleetServer, rounds: int, say: Callable[[str], object]) -> dict[str, int]:
    callers = Callers(server)
    callers.start()
    try:
        for number in range(1, rounds + 1):
            server.roll()
            callers.check()
            if number % 10 == 0:
                say(f"round {number}: {callers.seen['answered']} answered")
    finally:
        callers.stop()
    callers.check()
    accepted = callers.seen["accepted"]
    if callers.seen["answered"] != accepted:
        raise Broken(f"{accepted} were accepted, and {callers.seen['answered']} answered")
    counted = 'openhqm_submissions_total{outcome="accepted"}'
    until(lambda: server.metric(counted) == accepted, f"{accepted} are counted, not {server.metric(counted)}")
    for name, wanted in (
        ('openhqm_queue_depth{queue="openhqm-dlq",state="ready"}', 0),
        ("openhqm_dead_letters_total", 0),
        ('openhqm_process_ends_total{reason="died"}', 0),
        ('openhqm_process_ends_total{reason="told"}', rounds * PROCESSES),
    ):
        if (found := server.metric(name)) != wanted:
            raise Broken(f"{name} is {found}, and not {wanted}")
    return {"rounds": rounds, **callers.seen}


def main() -> int:
    """Return 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.rolling")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--backend", choices=list(BACKENDS), default="redis")
    options = parser.parse_args()
    try:
        done = run(options.rounds, options.backend)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    print("kept: " + ", ".join(f"{value} {name}" for name, value in done.items()))
    print("0 refused, 0 lost, 0 dead-lettered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
