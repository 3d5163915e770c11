"""The crash test on Redis: listener, worker and Redis itself are killed in turn, and no request is lost.

    python -m tests.crash_redis --rounds 200 [--seed N]

Listener and worker are separate processes. Redis syncs its append-only file before each answer.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests import crash_follow_ups
from tests.beside import queue_in_redis
from tests.brokers import RedisServer
from tests.crash import (
    ENDS_WITHIN,
    FOLLOW_UPS,
    WORKING_SHARE,
    Broken,
    Callers,
    ended,
    known,
    with_last_log_lines,
    works_again,
)
from tests.servers import Server

# Some 250 requests for each kill: at the end each one is read over HTTP.
PAUSE = 0.03
MOST_OPEN = "100"
WORKING = 20


class Installation:
    """A Redis, a listener and a worker.

    ``before`` is Python that both processes run first; ``settings`` are those of Redis.
    """

    limits: Mapping[str, str] = {"OPENHQM_QUEUE__LIMITS__REQUESTS": MOST_OPEN}

    def __init__(self, directory: Path, before: str = "", **settings: str) -> None:
        self.redis = RedisServer(**settings)
        self.listener = Server(
            directory,
            f"{FOLLOW_UPS}; {before}",
            **self.backend(),
            OPENHQM_QUEUE__LEASE_SECONDS="1",
            OPENHQM_WORKER__HANDLER="tests.crash_handler:handle",
            OPENHQM_WORKER__COUNT="8",
            OPENHQM_WORKER__MAX_RETRIES="1000",
            OPENHQM_WORKER__RETRY__BASE_SECONDS="0.05",
            OPENHQM_WORKER__RETRY__MAX_SECONDS="0.5",
            **self.limits,
        )
        self.worker: subprocess.Popen[bytes] | None = None
        self.parts = {
            "listener": (self.listener.kill, self.start_listener),
            "worker": (self.kill_worker, self.start_worker),
            "redis": (self.redis.kill, self.redis.start),
        }

    def backend(self) -> dict[str, str]:
        """The settings that name the backend."""
        return queue_in_redis(self.redis)

    def start(self) -> None:
        self.redis.start()
        self.start_worker()
        self.start_listener()

    def start_listener(self) -> None:
        self.listener.start("--role", "listener")

    def start_worker(self) -> None:
        with (self.listener.directory / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                self.listener.command("--role", "worker"),
                cwd=self.listener.directory,
                env=self.listener.variables(),
                stdout=log,
                stderr=log,
            )

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def stop(self) -> None:
        """`Broken` unless SIGTERM ends both with 0."""
        assert self.worker is not None
        self.worker.terminate()
        for name, code in (("worker", self.worker.wait(60)), ("listener", self.listener.stop())):
            if code != 0:
                raise Broken(f"SIGTERM ended the {name} with {code}")

    def check(self, callers: Callers) -> None:
        """See `nothing_unexpected`."""
        nothing_unexpected(self.redis, callers)

    def close(self) -> None:
        for process in (self.worker, self.listener.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self.redis.close()


def nothing_unexpected(redis: RedisServer, callers: Callers) -> None:
    """`Broken` unless each record was submitted, and each submission has at most one record."""
    found: Counter[int] = Counter()
    payloads: list[dict[str, int]] = []
    done: set[int] = set()
    keys = redis.command("KEYS", "*:r:*")
    for reply, body in redis.commands([("HMGET", key, "reply", "body") for key in keys]):
        if reply is not None:
            payload = msgspec.json.decode(reply)["result"]
            done.update((payload["n"],) if "n" in payload else ())
        elif body is not None:
            envelope = msgspec.json.decode(body)
            payload = envelope["payload"]
            if "follows" in payload and "parent_reply" not in envelope:
                continue  # it is held back
        else:
            continue  # its message is in the broker, and it has not ended
        payloads.append(payload)
        found.update((payload["n"],) if "n" in payload else ())
    if (problem := crash_follow_ups.wrong(payloads, done)) is not None:
        raise Broken(problem)
    strange = set(found) - callers.sent
    if strange:
        raise Broken(f"no caller submitted {sorted(strange)[:5]}")
    twice = [number for number, count in found.items() if count > 1]
    if twice:
        raise Broken(f"submission {twice[0]} was accepted {found[twice[0]]} times")


def at_last(check: Callable[[], None], patience: float) -> None:
    """`Broken` where it still is after ``patience`` seconds: follow-ups end a moment after what they follow."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return check()
        except Broken:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def run(
    rounds: int,
    seed: int,
    say: Any = print,
    *,
    install: type[Installation] = Installation,
    patience: float = ENDS_WITHIN,
    before: str = "",
    **settings: str,
) -> dict[str, int]:
    """Kill ``rounds`` processes in turn, and return what was done. `Broken` with the first violation of a promise.

    ``before`` is Python that both processes run first, and ``settings`` are those of Redis: either can inject a fault.
    """
    choose = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="openhqm-crash-"))
    installation = install(directory, before, **settings)
    try:
        installation.start()
        server = installation.listener
        callers = Callers(server, seed, PAUSE)
        callers.start()
        try:
            for number in range(1, rounds + 1):
                pause = choose.uniform(0.05, 1.0)
                if choose.random() < WORKING_SHARE:
                    works_again(callers.ids, WORKING)
                time.sleep(pause)
                kill, start = list(installation.parts.values())[number % len(installation.parts)]
                kill()
                fresh = len(callers.ids)
                start()
                older = choose.sample(callers.ids[:fresh], min(50, fresh))
                known(server, callers, [*callers.ids[max(0, fresh - 400) : fresh], *older])
                callers.check()
                if number % 20 == 0:
                    say(f"round {number}: {len(callers.accepted)} accepted, none lost")
        finally:
            callers.stop()
        known(server, callers, list(callers.accepted))
        repeated = ended(server, callers, patience)
        at_last(lambda: installation.check(callers), patience)
        installation.stop()
        installation.check(callers)
    except Broken as broken:
        if before or settings:
            shutil.rmtree(directory)
            raise
        say(f"the logs are left in {directory}")
        raise with_last_log_lines(broken, directory) from broken
    finally:
        installation.close()
    shutil.rmtree(directory)
    return {
        "kills": rounds,
        "accepted": len(callers.accepted),
        "sent": len(callers.sent),
        "with key": len(callers.keys),
        "refused": callers.refused,
        "handled once more": repeated,
    }


def main(program: str, install: type[Installation], **others: type[Installation]) -> int:
    """Return 0 where every promise was kept. Each of ``others`` is installed with an option of that name."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    for name, other in others.items():
        parser.add_argument(f"--{name}", dest="install", action="store_const", const=other)
    parser.set_defaults(install=install)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    try:
        done = run(options.rounds, options.seed, install=options.install)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    print("kept: " + ", ".join(f"{value} {name}" for name, value in done.items()) + "; 0 lost, 0 ended twice")
    return 0


if __name__ == "__main__":
    sys.exit(main("tests.crash_redis", Installation))
