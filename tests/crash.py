"""Kill the server at random, start it again on the same files, and compare what callers were told with what is stored.

    python -m tests.crash --rounds 200 [--seed N] [--break answer-first|ack-first]
    python -m tests.crash_redis --rounds 200 [--seed N]

Callers keep submitting, some with idempotency keys, under which they repeat a request until they have an answer. Some
requests have a delay, some fail at first and are retried, and each tenth has a follow-up. The queue is limited, and
refuses while it is full.

After each restart, every id that a 202 carried is known within ten seconds. At the end, each of them has ended exactly
once with the right result, each tenth has exactly one follow-up, and nothing is stored that no caller submitted. With
``--break`` a fault is injected on purpose. Then this program must fail: otherwise it would test nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests import crash_follow_ups
from tests.servers import Server

KNOWN_WITHIN = 10.0
ENDS_WITHIN = 60.0
CALLERS = 4
MOST_LINES = 40
MOST_OPEN = "24"
FOLLOW_UPS = "from tests import crash_follow_ups; crash_follow_ups.install()"
WORKING_SHARE = 0.8
"""In so many rounds a process is killed while all of them work, in the others perhaps while one comes back."""
WORKING, WORKS_WITHIN = 60, 20.0
"""So many requests are accepted before such a kill, however busy the machine is, within so many seconds."""
FAULTS = {"": "none", "answer-first": "answer_first", "ack-first": "ack_first"}


class Broken(Exception):
    """A promise of OpenHQM was not kept."""


class Callers:
    """The callers: what they sent, and what they were told. Each pauses up to ``pause`` seconds after a 202."""

    def __init__(self, server: Server, seed: int, pause: float = 0.01) -> None:
        self.server = server
        self._pause = pause
        self.sent: set[int] = set()
        self.keys: dict[int, str] = {}
        self.accepted: dict[str, int] = {}
        self.endings: dict[str, bytes] = {}
        self.ids: list[str] = []
        self.refused = 0
        self.violations: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit, args=(random.Random(f"{seed} {index}"),)) for index in range(CALLERS)
        ]
        self._threads.append(threading.Thread(target=self._look, args=(random.Random(f"{seed} look"),)))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _submit(self, choose: random.Random) -> None:
        repeat: int | None = None
        while not self._stop.is_set():
            with self._lock:
                number = repeat if repeat is not None else len(self.sent)
                self.sent.add(number)
            headers = {}
            if repeat is not None or choose.random() < 0.5:
                headers["Idempotency-Key"] = self.keys.setdefault(number, f"key-{number}")
            document = _document(number)
            try:
                status, _, body = self.server.ask("POST", "/api/v1/submit", document, headers, timeout=5)
            except (OSError, http.client.HTTPException):
                repeat = number if headers else None
                time.sleep(0.005)
                continue
            if status == 202:
                self._learned(json.loads(body)["correlation_id"], number)
                # Sometimes a caller repeats a request under a key that was answered.
                repeat = number if headers and choose.random() < 0.1 else None
                time.sleep(choose.uniform(0, self._pause))
            elif status == 503:
                repeat = number if headers else None
                self.refused += 1
                time.sleep(choose.uniform(0, self._pause))
            else:
                self.violations.append(f"{status} for a good submission: {body!r}")

    def _learned(self, correlation_id: str, number: int) -> None:
        with self._lock:
            if self.accepted.get(correlation_id, number) != number:
                self.violations.append(f"{correlation_id} was given out for two submissions")
            others = [one for one in self.ids[-50:] if self.accepted[one] == number and one != correlation_id]
            if others:
                self.violations.append(f"submission {number} has two ids: {others[0]} and {correlation_id}")
            self.accepted[correlation_id] = number
            self.ids.append(correlation_id)

    def _look(self, choose: random.Random) -> None:
        """Read endings at random and remember them: an ending never changes."""
        while not self._stop.is_set():
            time.sleep(0.01)
            with self._lock:
                known = self.ids[-200:]
            if not known:
                continue
            correlation_id = choose.choice(known)
            try:
                status, _, body = self.server.ask("GET", f"/api/v1/response/{correlation_id}", timeout=5)
            except (OSError, http.client.HTTPException):
                continue
            if status == 200:
                self.saw(correlation_id, body)
            elif status not in (202, 503):
                self.violations.append(f"{correlation_id}: {status} {body!r}")

    def saw(self, correlation_id: str, ending: bytes) -> None:
        if self.endings.setdefault(correlation_id, ending) != ending:
            self.violations.append(f"{correlation_id} has ended twice: {self.endings[correlation_id]!r}, {ending!r}")

    def check(self) -> None:
        if self.violations:
            raise Broken(self.violations[0])


def _document(number: int) -> dict[str, Any]:
    """What is submitted: the same each time, for it may be repeated under its key."""
    payload: dict[str, int] = {"n": number}
    if number % 7 == 3:
        payload["fails"] = 1 + number % 2
    metadata = {"delay": number % 5 * 0.3} if number % 11 == 5 else {}
    return {"payload": payload, "metadata": metadata}


class Reader:
    """Reads over one connection, because thousands of ids are read."""

    def __init__(self, server: Server) -> None:
        self._connection = server.connection(timeout=5)

    def ask(self, path: str, deadline: float) -> tuple[int, bytes]:
        """Status and body of the first answer that is not 503. `Broken` where there is none by ``deadline``."""
        while True:
            try:
                self._connection.request("GET", path)
                response = self._connection.getresponse()
                body = response.read()
                if response.status != 503 or time.monotonic() > deadline:  # 503: the store is not ready yet
                    return response.status, body
            except (OSError, http.client.HTTPException):
                self._connection.close()  # the next request opens it again
                if time.monotonic() > deadline:
                    raise Broken(f"{path} had no answer in time") from None
            time.sleep(0.01)

    def close(self) -> None:
        self._connection.close()


def works_again(done: Sequence[Any], more: int) -> None:
    """Come back once ``done`` has ``more`` entries than now; at the latest after `WORKS_WITHIN` seconds."""
    wanted, deadline = len(done) + more, time.monotonic() + WORKS_WITHIN
    while len(done) < wanted and time.monotonic() < deadline:
        time.sleep(0.01)


def known(server: Server, callers: Callers, ids: list[str]) -> None:
    """`Broken` unless every id is known within ten seconds: asking for hundreds takes its own time."""
    with closing(Reader(server)) as reader:
        for correlation_id in ids:
            status, body = reader.ask(f"/api/v1/status/{correlation_id}", time.monotonic() + KNOWN_WITHIN)
            if status != 200:
                raise Broken(
                    f"{correlation_id} (submission {callers.accepted[correlation_id]}) was accepted: {status} {body!r}"
                )


def ended(server: Server, callers: Callers, patience: float) -> int:
    """How often a handler ran for a request that it had run for, without being asked to fail.

    `Broken` unless every id has ended once, with the right result and with the ending that was read before.
    """
    deadline = time.monotonic() + patience + len(callers.accepted) * 0.01
    repeated = 0
    with closing(Reader(server)) as reader:
        for correlation_id, number in callers.accepted.items():
            while True:
                status, body = reader.ask(f"/api/v1/response/{correlation_id}?wait=2", deadline)
                if status == 200 or time.monotonic() > deadline:
                    break
            if status != 200:
                raise Broken(f"{correlation_id} (submission {number}) has not ended: {status} {body!r}")
            callers.saw(correlation_id, body)
            document = json.loads(body)
            if (document["status"], document["result"]) != ("COMPLETED", {"n": number, "square": number**2}):
                raise Broken(f"{correlation_id} ended wrongly: {body!r}")
            _, stream = reader.ask(f"/api/v1/events/{correlation_id}", deadline)
            names = [line[7:] for line in stream.decode().splitlines() if line.startswith("event: ")]
            if names.count("completed") != 1 or names[-1] != "completed" or names[0] != "pending":
                raise Broken(f"{correlation_id} has the history {names}")
            repeated += max(0, names.count("processing") - 1 - _document(number)["payload"].get("fails", 0))
    callers.check()
    return repeated


def nothing_unexpected(directory: Path, callers: Callers) -> None:
    """`Broken` unless each request in the file was submitted, and each submission is in it at most once."""
    database = sqlite3.connect(f"file:{directory / 'data' / 'openhqm.db'}?mode=ro", uri=True)
    try:
        keys = {key: json.loads(body) for key, body in database.execute("SELECT key, body FROM messages")}
        ended_keys = {key for (key,) in database.execute("SELECT key FROM endings")}
        held = {key for (key,) in database.execute("SELECT key FROM held")}
    finally:
        database.close()
    payloads = [body["payload"] for key, body in keys.items() if key not in held]
    found = Counter(payload["n"] for payload in payloads if "n" in payload)
    done = {body["payload"]["n"] for key, body in keys.items() if key in ended_keys and "n" in body["payload"]}
    if (problem := crash_follow_ups.wrong(payloads, done)) is not None:
        raise Broken(problem)
    for body in keys.values():
        reply = body.get("parent_reply")
        if reply is not None and reply["result"]["n"] != body["payload"]["follows"]:
            raise Broken(f"the follow-up of {body['payload']['follows']} has another reply: {reply}")
    strange = set(found) - callers.sent
    if strange:
        raise Broken(f"no caller submitted {sorted(strange)[:5]}")
    twice = [number for number, count in found.items() if count > 1]
    if twice:
        raise Broken(f"submission {twice[0]} was accepted {found[twice[0]]} times")


def with_last_log_lines(broken: Broken, directory: Path) -> Broken:
    """``broken`` with the last lines above level info in the logs of the processes."""
    lines = [str(broken)]
    for log in sorted([directory / "log", *directory.glob("*.log")]):
        warnings = [line for line in log.read_text(errors="replace").splitlines() if '"level": "info"' not in line]
        lines += [f"{log.name}:", *warnings[-MOST_LINES:]]
    return Broken("\n".join(lines))


def run(rounds: int, seed: int, fault: str = "", patience: float = ENDS_WITHIN, say: Any = print) -> dict[str, int]:
    """Kill the server ``rounds`` times, and return what was done. `Broken` with the first violation of a promise.

    ``patience``: how many seconds the last request may take to end. ``fault``: the name of a fault to inject.
    """
    choose = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="openhqm-crash-"))
    server = Server(
        directory,
        before=FOLLOW_UPS
        + (f"; from tests import fault_injection; fault_injection.{FAULTS[fault]}()" if fault else ""),
        OPENHQM_WORKER__HANDLER="tests.crash_handler:handle",
        OPENHQM_WORKER__COUNT="8",
        OPENHQM_WORKER__MAX_RETRIES="1000",
        OPENHQM_WORKER__RETRY__BASE_SECONDS="0.05",
        OPENHQM_WORKER__RETRY__MAX_SECONDS="0.5",
        OPENHQM_QUEUE__LIMITS__REQUESTS=MOST_OPEN,
    )
    server.start()
    callers = Callers(server, seed)
    callers.start()
    try:
        for number in range(1, rounds + 1):
            pause = choose.uniform(0.05, 1.0)
            if choose.random() < WORKING_SHARE:
                works_again(callers.ids, WORKING)
            time.sleep(pause)
            server.kill()
            before = len(callers.ids)
            server.start()
            newest = callers.ids[max(0, before - 400) : before]
            older = choose.sample(callers.ids[:before], min(50, before))
            known(server, callers, [*newest, *older])
            callers.check()
            if number % 20 == 0:
                say(f"round {number}: {len(callers.accepted)} accepted, none lost")
    except BaseException:
        server.kill()
        if fault:
            shutil.rmtree(directory)
        raise
    finally:
        callers.stop()
    try:
        known(server, callers, list(callers.accepted))
        repeated = ended(server, callers, patience)
        if (code := server.stop()) != 0:
            raise Broken(f"SIGTERM ended it with {code}")
        nothing_unexpected(directory, callers)
    except Broken as broken:
        if fault:
            shutil.rmtree(directory)
            raise
        say(f"the files are left in {directory}")
        raise with_last_log_lines(broken, directory) from broken
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
    shutil.rmtree(directory)
    return {
        "kills": rounds,
        "accepted": len(callers.accepted),
        "sent": len(callers.sent),
        "with key": len(callers.keys),
        "refused": callers.refused,
        "handled once more": repeated,
    }


def main() -> int:
    """Return 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--break", dest="fault", choices=[name for name in FAULTS if name], default="")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    try:
        done = run(options.rounds, options.seed, options.fault)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    print("kept: " + ", ".join(f"{value} {name}" for name, value in done.items()) + "; 0 lost, 0 ended twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
