"""What stands in for pods and for what is around them: processes at addresses of their own, and a Service before them.

A pod is a process with an address: in a network namespace of its own, or on an address of loopback. A Service hands on
connections, as kube-proxy does: it chooses a pod for each, and knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.fleet.fleets import until
from tests.servers import Server, free_port

ADMIN_KEY = "0" * 64


class Loopback:
    """Addresses below 127.0.0.0/8, which need no rights."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self._numbers = itertools.count(2)

    def add(self) -> str:
        """An address for a new pod."""
        number = next(self._numbers)
        return f"127.0.{number // 250 + 1}.{number % 250 + 1}"

    def inside(self, address: str, command: list[str]) -> list[str]:
        """The command that runs ``command`` at that address."""
        return command

    def remove(self, address: str) -> None:
        """Take the address of a pod that has ended away."""

    def close(self) -> None:
        """Take all of them away."""


class Namespaces:
    """A network namespace for each pod, on one bridge. Needs root. An address that was removed answers nothing."""

    def __init__(self) -> None:
        self.host = "10.213.7.1"
        self._bridge = f"ohqm{os.getpid()}"
        self._numbers = itertools.count(2)
        self._names: dict[str, str] = {}
        _ip(f"link add {self._bridge} type bridge")
        # Its own address: otherwise it has the lowest of its ports', and what pods know of it is wrong when one leaves.
        _ip(f"link set {self._bridge} address 02:00:00:00:00:01")
        _ip(f"addr add {self.host}/24 dev {self._bridge}")
        _ip(f"link set {self._bridge} up")

    def add(self) -> str:
        """The address of a new namespace."""
        number = next(self._numbers) % 250 + 2
        address, name, link = f"10.213.7.{number}", f"{self._bridge}-{number}", f"v{os.getpid()}-{number}"
        _ip(f"netns add {name}")
        self._names[address] = name
        _ip(f"link add {link} type veth peer name eth0 netns {name}")
        _ip(f"link set {link} master {self._bridge} up")
        for what in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _ip(f"-n {name} {what}")
        return address

    def inside(self, address: str, command: list[str]) -> list[str]:
        """The command that runs ``command`` in the namespace with that address."""
        return ["ip", "netns", "exec", self._names[address], *command]

    def remove(self, address: str) -> None:
        """Remove the namespace: what is sent to its address gets no answer."""
        _ip(f"netns del {self._names.pop(address)}")

    def close(self) -> None:
        """Remove all of them, and the bridge."""
        for address in list(self._names):
            self.remove(address)
        _ip(f"link del {self._bridge}")


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True)


class Pod(Server):
    """A process in one role, with the settings of the manifests: a door at one port, the admin listener at another."""

    def __init__(self, directory: Path, network: Loopback | Namespaces, role: str, port: int, **settings: str) -> None:
        self.address, self.role, self.network = network.add(), role, network
        directory = directory / f"{role}-{self.address}"
        directory.mkdir()
        super().__init__(
            directory,
            **{
                "OPENHQM_SERVER__HOST": self.address,
                "OPENHQM_AUTH__TYPE": "none",
                "OPENHQM_ADMIN__HOST": self.address,
                "OPENHQM_ADMIN__PORT": str(port + 1),
                "OPENHQM_ADMIN__KEY": ADMIN_KEY,
                **settings,
            },
        )
        self.port = port

    def command(self, *arguments: str) -> list[str]:
        return self.network.inside(self.address, super().command("--role", self.role, *arguments))

    def connection(self, timeout: float = 20) -> http.client.HTTPConnection:
        """A connection to its admin listener, as the probes, Prometheus and the autoscaler have it."""
        return http.client.HTTPConnection(self.address, self.port + 1, timeout=timeout)

    def door(self, timeout: float = 20) -> http.client.HTTPConnection:
        """A connection to its door."""
        return http.client.HTTPConnection(self.address, self.port, timeout=timeout)

    def metric(self, name: str) -> float:
        """The value of a sample, by its name with its labels; 0 where there is none."""
        status, _, text = self.ask("GET", "/metrics", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
        assert status == 200, text
        found = (line.rpartition(" ") for line in text.decode().splitlines())
        return next((float(value) for sample, _, value in found if sample == name), 0.0)

    def end(self) -> None:
        """Tell it to stop, and come back when it has, without an error."""
        code = self.stop()
        assert code == 0, f"{self.role} ended with {code}:\n{self.log()}"
        self.network.remove(self.address)


class Service:
    """Connections to one address, handed on to ``pods`` in turn. ``refused`` counts those that no pod has taken."""

    def __init__(self, network: Loopback | Namespaces, targets: list[tuple[str, int]] | None = None) -> None:
        self.host, self.port = network.host, free_port()
        self.targets = targets or []
        self.refused = 0
        self._turn = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def add(self, pod: Pod) -> None:
        """Send it connections."""
        self.targets = [*self.targets, (pod.address, pod.port)]

    def remove(self, pod: Pod) -> None:
        """Send it no new connections. Those that it has stay."""
        self.targets = [each for each in self.targets if each != (pod.address, pod.port)]

    def connection(self, timeout: float = 20) -> http.client.HTTPConnection:
        """A connection to the Service, as a caller has it."""
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def close(self) -> None:
        """Close its connections, and end."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, self.host, self.port)

    async def _end(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        targets, self._turn = self.targets, self._turn + 1
        try:
            host, port = targets[self._turn % len(targets)]
            there = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        except (OSError, TimeoutError, ZeroDivisionError):
            self.refused += 1
            writer.transport.abort()
            return
        ends = {writer, there[1]}
        self._open |= ends
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
        self._open -= ends
        for end in ends:
            end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


class Deployment:
    """Pods of one role, which are replaced as a rolling update replaces them: maxSurge 1, maxUnavailable 0."""

    def __init__(self, make: Callable[[], Pod], service: Service | None = None) -> None:
        self.pods: list[Pod] = []
        self._make, self._service = make, service

    def scale(self, count: int) -> None:
        """Have ``count`` pods that are ready; or the oldest of them, where there are more."""
        while len(self.pods) < count:
            self.pods.append(self._start())
        while len(self.pods) > count:
            self._leave(self.pods.pop(), 0)

    def roll(self, pre_stop: float) -> None:
        """Replace each pod by a new one. ``pre_stop`` is how many seconds there are between the deletion and SIGTERM;
        the Service learns of it halfway, and sends connections until then."""
        for old in list(self.pods):
            self.pods.append(self._start())
            self.pods.remove(old)
            self._leave(old, pre_stop)

    def close(self) -> None:
        """Kill what is left."""
        for pod in self.pods:
            if pod.process is not None and pod.process.poll() is None:
                pod.kill()

    def _start(self) -> Pod:
        pod = self._make()
        try:
            pod.start()
        except BaseException:
            pod.kill()
            raise
        if self._service is not None:
            self._service.add(pod)
        return pod

    def _leave(self, pod: Pod, pre_stop: float) -> None:
        time.sleep(pre_stop / 2)  # not waiting for luck: what the manifests say
        if self._service is not None:
            self._service.remove(pod)
        time.sleep(pre_stop / 2)  # as above
        pod.end()


class Autoscaler:
    """KEDA between zero and one: asks ``pod`` for the backlog of the queue, and scales the workers by it."""

    def __init__(self, pod: Pod, workers: Deployment) -> None:
        self._pod, self._workers = pod, workers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End, and leave the workers as they are."""
        self._stop.set()
        self._thread.join()

    def scaled(self, count: int) -> None:
        """Return when there are so many workers."""
        until(lambda: len(self._workers.pods) == count, f"{count} workers", 60)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            load = self._ask()
            if load["backlog"] and not self._workers.pods:
                self._workers.scale(1)
            elif not load["backlog"] and not load["in_flight"] and self._workers.pods:
                self._workers.scale(0)

    def _ask(self) -> Mapping[str, Any]:
        path = "/admin/api/v1/scaler/openhqm-requests"
        status, _, text = self._pod.ask("GET", path, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
        assert status == 200, text
        document: Mapping[str, Any] = json.loads(text)
        return document
