"""What wrong logins of one address cost the others: the time of accepting, without them and with 5,000 a second.

    python -m benchmarks.wrong_logins [--rate 5000] [--slices 20] [--seconds 2] [--directory /dev/shm]

Ten callers at one address submit ten requests a second each, with a good token. From another address come tokens with
a wrong signature, a different one each time, evenly over 50 connections, in every second slice of a run. So what else
the machine does meets both. There is a run with the limit of ``auth.wrong_logins`` and one without it. The PROXY
protocol says who is where. The queue is in memory that looks like a disk, whose pauses would be larger than all else.
"""

from __future__ import annotations

import argparse
import asyncio
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import running
from benchmarks.accepting import cpu
from benchmarks.credentials import kinds_of

CALLERS, EACH, CONNECTIONS = 10, 10.0, 50
FROM = "PROXY TCP4 {} 127.0.0.1 1000 80\r\n"
BODY = b'{"payload":1}'
MARGIN = 0.1  # seconds at both ends of a slice, in which the other one may still have an effect


def request(token: str) -> bytes:
    """A submission."""
    lines = f"Host: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
    return f"POST /api/v1/submit HTTP/1.1\r\n{lines}\r\n\r\n".encode() + BODY


class Slices:
    """Which of so many slices it is, of ``seconds`` each from ``began`` on; the odd ones are with wrong logins."""

    def __init__(self, began: float, count: int, seconds: float) -> None:
        self.began, self.seconds = began, seconds
        self.end = began + count * seconds

    def at(self, now: float) -> int | None:
        """0 without, 1 with; None: near the end of a slice, or beyond all."""
        number, into = divmod(now - self.began, self.seconds)
        if now >= self.end or number < 0 or not MARGIN <= into <= self.seconds - MARGIN:
            return None
        return int(number) % 2


async def call(port: int, token: str, slices: Slices, number: int, found: list[list[float]]) -> None:
    """Submit at a steady rate, and keep how long each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(FROM.format("198.51.100.9").encode())
    due = slices.began + number / CALLERS / EACH
    while due < slices.end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += 1 / EACH
        sent = time.monotonic()
        writer.write(request(token))
        answer = await reader.read(65536)
        assert answer.startswith(b"HTTP/1.1 202"), answer
        which = slices.at(sent)
        if which is not None:
            found[which].append(time.monotonic() - sent)
    writer.close()


def flood(port: int, token: str, rate: float, slices: Slices) -> None:
    """Send wrong ones in the odd slices, and print how many a second were answered, by their status."""
    poll = select.epoll()
    free, by_file = list[socket.socket](), dict[int, socket.socket]()
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(FROM.format("192.0.2.7").encode())
        poll.register(connection, select.EPOLLIN)
        by_file[connection.fileno()] = connection
        free.append(connection)
    answers, sent, due = dict[str, int](), 0, slices.began + slices.seconds
    while (now := time.monotonic()) < slices.end:
        into = (now - slices.began) % (2 * slices.seconds)
        if into < slices.seconds:  # a slice without
            due = max(due, now + slices.seconds - into)
        while due <= now and free:
            free.pop().sendall(request(f"{token[:-10]}{sent:08d}{token[-2:]}"))
            sent += 1
            due = max(due + 1 / rate, now - CONNECTIONS / rate)
        for file, _ in poll.poll(min(max(0.0, due - time.monotonic()), 0.1)):
            connection = by_file[file]
            status = connection.recv(65536)[9:12].decode()
            answers[status] = answers.get(status, 0) + 1
            free.append(connection)
    seconds = (slices.end - slices.began) / 2
    print(", ".join(f"{count / seconds:.0f}/s {status}" for status, count in sorted(answers.items())))


async def submit_all(port: int, token: str, slices: Slices, pid: int) -> tuple[list[list[float]], list[float]]:
    """The times of all callers, without and with wrong ones, and the part of a core that the listener took then."""
    found: list[list[float]] = [[], []]
    used: list[list[float]] = [[], []]

    async def watch() -> None:
        number, count = 0, round((slices.end - slices.began) / slices.seconds)
        while number < count:
            await asyncio.sleep(slices.began + number * slices.seconds + MARGIN - time.monotonic())
            began, before = time.monotonic(), cpu(pid)
            await asyncio.sleep(slices.began + (number + 1) * slices.seconds - MARGIN - time.monotonic())
            used[number % 2].append((cpu(pid) - before) / (time.monotonic() - began))
            number += 1

    await asyncio.gather(watch(), *(call(port, token, slices, each, found) for each in range(CALLERS)))
    return found, [statistics.median(each) for each in used]


def percentile(found: list[float], part: float) -> float:
    return sorted(found)[int(len(found) * part)] * 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rate", type=float, default=5000)
    options.add_argument("--slices", type=int, default=20)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--directory", default="/dev/shm")
    options.add_argument("--flood", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.flood is not None:  # in a process of its own
        port, token, began = chosen.flood
        flood(int(port), token, chosen.rate, Slices(float(began), chosen.slices, chosen.seconds))
        return
    with tempfile.TemporaryDirectory() as directory:
        kind = kinds_of(Path(directory))["jwt"]
        good = kind.field.split()[2].decode()
        proxied = {"OPENHQM_SERVER__PROXY_PROTOCOL": "true", "OPENHQM_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]'}
        for limit in ("60", "null"):
            settings: dict[str, Any] = {**kind.environment, **proxied}
            settings["OPENHQM_AUTH__WRONG_LOGINS"] = f'{{"requests": {limit}}}'
            port = running.free_port()
            with (
                tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir=chosen.directory) as store,
                running.openhqm(port, "--role", "listener", directory=store, **settings) as listener,
            ):
                slices = Slices(time.monotonic() + 1, chosen.slices, chosen.seconds)
                command = [sys.executable, "-m", "benchmarks.wrong_logins", "--rate", str(chosen.rate)]
                command += ["--slices", str(chosen.slices), "--seconds", str(chosen.seconds)]
                with subprocess.Popen(
                    [*command, "--flood", str(port), good, str(slices.began)], stdout=subprocess.PIPE, text=True
                ) as flooding:
                    (alone, beside), used = asyncio.run(submit_all(port, good, slices, listener.pid))
                    said = flooding.communicate()[0].strip()
            for name, part in (("median", 0.5), ("p99", 0.99)):
                before, after = percentile(alone, part), percentile(beside, part)
                print(
                    f"limit {limit:4}  {name:6} {before:6.2f} and {after:6.2f} ms: {after / before:5.2f} x", flush=True
                )
            print(f"limit {limit:4}  CPU of the listener {used[0]:.0%} and {used[1]:.0%} of a core; {said}", flush=True)


if __name__ == "__main__":
    main()
