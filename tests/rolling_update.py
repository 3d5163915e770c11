"""Roll three listeners and three workers over, again and again under load; and scale workers from zero.

    python -m tests.rolling_update [--rounds 20] [--namespaces]

The pods are processes on one Redis, behind a Service (`tests.pods`). With ``--namespaces``, as root, each has a network
namespace of its own; without, an address of loopback. The callers are those of `tests.rolling`: none of them may see a
connection refused or reset, or an unexpected status, and every request that was accepted is answered.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pods import Autoscaler, Deployment, Loopback, Namespaces, Pod, Service
from tests.rolling import Broken, Callers, on_redis
from tests.servers import free_port

PODS = 3
PRE_STOP = 1.0  # of 5 s in the manifests: this Service learns faster than a cluster


class Cluster:
    """A listeners' and a workers' Deployment on one store, with a Service before the listeners."""

    def __init__(self, directory: Path, network: Loopback | Namespaces, **settings: str) -> None:
        self.service = Service(network)
        port = free_port()
        settings = {"OPENHQM_WORKER__HANDLER": "tests.crash_handler:slowly", **settings}
        self.listeners = Deployment(lambda: Pod(directory, network, "listener", port, **settings), self.service)
        self.workers = Deployment(lambda: Pod(directory, network, "worker", port, **settings))

    def close(self) -> None:
        """Kill what runs."""
        self.listeners.close()
        self.workers.close()
        self.service.close()


@contextmanager
def cluster(namespaces: bool = False) -> Iterator[Cluster]:
    """A cluster on a Redis of its own."""
    directory = Path(tempfile.mkdtemp(prefix="openhqm-pods-"))
    network = Namespaces() if namespaces else Loopback()
    with on_redis() as settings:
        # In a namespace the Redis is at the address of the bridge.
        redis = Service(network, [("127.0.0.1", int(settings["OPENHQM_QUEUE__REDIS_URL"].split(":")[2].split("/")[0]))])
        url = f"redis://{network.host}:{redis.port}/0"
        made = Cluster(directory, network, **{**settings, "OPENHQM_QUEUE__REDIS_URL": url})
        try:
            yield made
        finally:
            made.close()
            redis.close()
            network.close()
    shutil.rmtree(directory)


def run(rounds: int, namespaces: bool = False, say: Callable[[str], object] = print) -> dict[str, float]:
    """Replace all pods ``rounds`` times, and return what was done. `Broken` where a promise is not kept."""
    with cluster(namespaces) as made:
        made.listeners.scale(PODS)
        made.workers.scale(PODS)
        callers = Callers(made.service)
        callers.start()
        seconds = []
        try:
            for number in range(1, rounds + 1):
                before = time.monotonic()
                made.listeners.roll(PRE_STOP)
                made.workers.roll(0)
                seconds.append(time.monotonic() - before)
                callers.check()
                say(f"round {number}: {seconds[-1]:.1f} s, {callers.seen['answered']} answered")
        finally:
            callers.stop()
        callers.check()
        if callers.seen["answered"] != callers.seen["accepted"]:
            raise Broken(f"{callers.seen['accepted']} were accepted, and {callers.seen['answered']} answered")
        if made.service.refused:
            raise Broken(f"{made.service.refused} connections were refused")
        if dead := made.workers.pods[0].metric('openhqm_queue_depth{queue="openhqm-dlq",state="ready"}'):
            raise Broken(f"there are {dead} dead letters")
        return {"rounds": rounds, **callers.seen, "slowest round, s": round(max(seconds), 1)}


def scale_from_zero(times: int = 2, namespaces: bool = False) -> list[float]:
    """Send a request while there is no worker, ``times`` times, and return how many seconds each waited for its reply.

    A stand-in for KEDA asks the listener for the backlog, starts a worker, and ends it when nothing is left to do.
    """
    with cluster(namespaces) as made:
        made.listeners.scale(1)
        autoscaler = Autoscaler(made.listeners.pods[0], made.workers)
        waited = []
        try:
            for number in range(1, times + 1):
                autoscaler.scaled(0)
                connection = made.service.connection(60)
                before = time.monotonic()
                headers = {"Content-Type": "application/json", "Prefer": "wait=50"}
                connection.request("POST", "/api/v1/submit", json.dumps({"payload": {"n": number}}), headers)
                response = connection.getresponse()
                document = json.loads(response.read())
                waited.append(time.monotonic() - before)
                if (response.status, document.get("result")) != (200, {"n": number, "square": number**2}):
                    raise Broken(f"{response.status}: {document}")
                connection.close()
            autoscaler.scaled(0)
        finally:
            autoscaler.close()
        return waited


def main() -> int:
    """Return 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.rolling_update")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--namespaces", action="store_true")
    options = parser.parse_args()
    try:
        done = run(options.rounds, options.namespaces)
        waited = scale_from_zero(5, options.namespaces)
    except (Broken, AssertionError) as broken:
        print(f"BROKEN: {broken}")
        return 1
    print("kept: " + ", ".join(f"{value} {name}" for name, value in done.items()))
    print("0 refused, 0 lost, 0 dead-lettered")
    print("from zero: answered after " + ", ".join(f"{each:.1f}" for each in waited) + " s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
