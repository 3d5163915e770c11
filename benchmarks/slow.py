"""Slow clients, which send or read one byte after another: python -m benchmarks.slow PORT COUNT PATH

Half of them send a request byte by byte; half ask for PATH, and read the answer byte by byte, through the smallest
window that they can have. A client that is disconnected connects again. A line is printed when all are connected.

One loop over plain sockets: the cost for the server is measured, so the clients themselves must cost little.
"""

from __future__ import annotations

import heapq
import random
import socket
import sys
import time

PAUSE = 2.0
TICK = 0.002
HEAD = b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


class Client:
    """A slow client. ``ask`` is the request whose answer it reads slowly; None: it sends slowly."""

    def __init__(self, port: int, ask: bytes | None) -> None:
        self._port = port
        self._ask = ask
        self.connect()

    def connect(self) -> None:
        """Connect, or connect again."""
        self._sent = 0
        self._connection = socket.socket()
        if self._ask is not None:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.connect(("127.0.0.1", self._port))
        if self._ask is not None:
            self._connection.sendall(self._ask)
        self._connection.setblocking(False)

    def step(self) -> None:
        """Send or read one byte."""
        try:
            if self._ask is None:
                self._connection.send(HEAD[self._sent : self._sent + 1])
                self._sent += 1
                over = self._sent == len(HEAD)
            else:
                over = not self._connection.recv(1)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over:
            self._connection.close()
            self.connect()


def main(port: int, count: int, path: str) -> None:
    """Run until killed."""
    ask = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
    clients = [Client(port, ask if number % 2 == 0 else None) for number in range(count)]
    print("all are connected", flush=True)
    now = time.monotonic()
    timers = [(now + random.uniform(0, 2 * PAUSE), number) for number in range(count)]
    heapq.heapify(timers)
    while True:
        now = time.monotonic()
        while timers[0][0] <= now:
            number = timers[0][1]
            clients[number].step()
            heapq.heapreplace(timers, (now + random.uniform(0, 2 * PAUSE), number))
        time.sleep(TICK)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
