"""What wrong logins of one address cost the others: the time of accepting, without them and with 5,000 a second.

    python -m benchmarks.wrong_logins [--rate 5000] [--rounds 3]

Ten callers at one address submit ten requests a second each, with a good token. From another address come tokens with
a wrong signature, once with the limit of ``auth.wrong_logins`` and once without it. The PROXY protocol says who is
where.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import running
from benchmarks.credentials import kinds_of

SECONDS, CALLERS, EACH, CONNECTIONS = 5.0, 10, 10.0, 50
FROM = "PROXY TCP4 {} 127.0.0.1 1000 80\r\n"
BODY = b'{"payload":1}'


def request(token: str) -> bytes:
    """A submission."""
    lines = f"Host: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
    return f"POST /api/v1/submit HTTP/1.1\r\n{lines}\r\n\r\n".encode() + BODY


async def call(port: int, token: str, found: list[float]) -> None:
    """Submit at a steady rate, and keep how long each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(FROM.format("198.51.100.9").encode())
    began = time.perf_counter()
    for number in range(int(SECONDS * EACH)):
        await asyncio.sleep(max(0.0, began + number / EACH - time.perf_counter()))
        sent = time.perf_counter()
        writer.write(request(token))
        answer = await reader.read(65536)
        found.append(time.perf_counter() - sent)
        assert answer.startswith(b"HTTP/1.1 202"), answer
    writer.close()


async def flood(port: int, token: str, rate: float) -> None:
    """Send wrong ones, and print how many a second were answered, by their status."""
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    for _, writer in pairs:
        writer.write(FROM.format("192.0.2.7").encode())
    began, answers = time.perf_counter(), dict[str, int]()
    while time.perf_counter() < began + SECONDS + 1:
        for _, writer in pairs:
            writer.write(request(token))
        for reader, _ in pairs:
            status = (await reader.read(65536))[9:12].decode()
            answers[status] = answers.get(status, 0) + 1
        await asyncio.sleep(max(0.0, began + sum(answers.values()) / rate - time.perf_counter()))
    seconds = time.perf_counter() - began
    print(", ".join(f"{count / seconds:.0f}/s {status}" for status, count in sorted(answers.items())))


async def callers(port: int, token: str) -> tuple[float, float]:
    """The median and the p99 of all callers, in milliseconds."""
    found: list[float] = []
    await asyncio.gather(*(call(port, token, found) for _ in range(CALLERS)))
    return statistics.median(found) * 1000, sorted(found)[int(len(found) * 0.99)] * 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rate", type=float, default=5000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--flood", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.flood is not None:  # in a process of its own
        asyncio.run(flood(int(chosen.flood[0]), chosen.flood[1], chosen.rate))
        return
    with tempfile.TemporaryDirectory() as directory:
        kind = kinds_of(Path(directory))["jwt"]
        good = kind.field.split()[2].decode()
        proxied = {"OPENHQM_SERVER__PROXY_PROTOCOL": "true", "OPENHQM_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]'}
        for _ in range(chosen.rounds):
            for limit in ("60", "null"):
                wrong = {"OPENHQM_AUTH__WRONG_LOGINS": f'{{"requests": {limit}}}'}
                port = running.free_port()
                with running.openhqm(port, "--role", "listener", **kind.environment, **proxied, **wrong):
                    alone = asyncio.run(callers(port, good))
                    command = [sys.executable, "-m", "benchmarks.wrong_logins", "--rate", str(chosen.rate)]
                    with subprocess.Popen(
                        [*command, "--flood", str(port), f"{good[:-8]}AAAAAAAA"], stdout=subprocess.PIPE, text=True
                    ) as flooding:
                        beside = asyncio.run(callers(port, good))
                        said = flooding.communicate()[0].strip()
                times = f"median {alone[0]:.1f} and {beside[0]:.1f} ms, p99 {alone[1]:.1f} and {beside[1]:.1f} ms"
                print(f"limit {limit:4}  without and with wrong ones: {times}; {said}", flush=True)


if __name__ == "__main__":
    main()
