"""Clients that send or read a byte now and then: python -m benchmarks.slow PORT COUNT PATH

Half of them send a request byte by byte; half ask for PATH, and read the answer byte by byte, through the smallest
window that they can have. Whoever is cut off comes back. A line is printed when all have been connected once.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys

PAUSE = 2.0
HEAD = b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


class Crowd:
    """All of them."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.ask = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
        self.connected = asyncio.Semaphore(100)  # at once: the listen queue is not what is measured

    async def one(self, reads: bool, arrived: asyncio.Future[None]) -> None:
        """One client, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            connection = socket.socket()
            connection.setblocking(False)
            if reads:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                async with self.connected:
                    await loop.sock_connect(connection, ("127.0.0.1", self.port))
                if not arrived.done():
                    arrived.set_result(None)
                if reads:
                    await loop.sock_sendall(connection, self.ask)
                    while await loop.sock_recv(connection, 1):  # noqa: ASYNC110 - nobody to wait for: it is slow
                        await asyncio.sleep(random.uniform(0, 2 * PAUSE))
                else:
                    for place in range(len(HEAD)):
                        await loop.sock_sendall(connection, HEAD[place : place + 1])
                        await asyncio.sleep(random.uniform(0, 2 * PAUSE))
            except OSError:
                await asyncio.sleep(random.uniform(0, 2 * PAUSE))
            finally:
                connection.close()


async def main(port: int, count: int, path: str) -> None:
    """Until killed."""
    crowd = Crowd(port, path)
    arrived = [asyncio.get_running_loop().create_future() for _ in range(count)]
    clients = [asyncio.create_task(crowd.one(number % 2 == 0, future)) for number, future in enumerate(arrived)]
    await asyncio.gather(*arrived)
    print("all are there", flush=True)
    await asyncio.gather(*clients)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
