"""Looking host names up: addresses need no thread, and no name holds up another."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openhqm.runtime import names
from openhqm.runtime.names import NameResolver


class Receiver:
    """Notes the addresses of one resolution. ``done`` fires with them."""

    def __init__(self) -> None:
        self.done: Deferred[list[Any]] = Deferred()
        self.found: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:
        verifyObject(IHostResolution, resolution)

    def addressResolved(self, address: Any) -> None:
        self.found.append(address)

    def resolutionComplete(self) -> None:
        self.done.callback(self.found)


class NamesTests(TestCase):
    """`NameResolver`, with a system whose answers the test gives"""

    timeout = 20

    def setUp(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers = threading.Semaphore(0)
        self.addCleanup(self.answers.release, 100)
        self.resolver = NameResolver(reactor, self.look_up)
        self.addCleanup(self.resolver._threads.stop)

    def look_up(self, name: str, *rest: Any) -> list[Any]:
        self.asked.append((name, *rest))
        assert self.answers.acquire(timeout=10)
        if name.endswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        if ".." in name:
            raise UnicodeError("label empty")
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, stream, 6, "", ("::2", 0, 0, 0)),
            (socket.AF_INET, stream, 6, "", ("192.0.2.7", 0)),
        ]

    def ask(self, name: str, port: int = 80, *more: Any) -> Deferred[list[Any]]:
        receiver = Receiver()
        self.resolver.resolveHostName(receiver, name, port, *more)
        return receiver.done

    def test_interface(self) -> None:
        """It can take the place of Twisted's."""
        verifyObject(IHostnameResolver, self.resolver)

    def test_addresses(self) -> None:
        """An address is its own answer, at once, and of a kind that was not asked for it has none."""
        for address, kind in (("192.0.2.1", IPv4Address), ("::1", IPv6Address)):
            self.assertEqual(self.successResultOf(self.ask(address, 8080)), [kind("TCP", address, 8080)])
        self.assertEqual(self.successResultOf(self.ask("::1", 8080, [IPv4Address])), [])
        self.assertEqual(self.asked, [])

    async def test_names(self) -> None:
        """All addresses of a name, in the system's order, with the port that was asked for."""
        self.answers.release(2)
        self.assertEqual(
            await self.ask("app", 8080), [IPv6Address("TCP", "::2", 8080), IPv4Address("TCP", "192.0.2.7", 8080)]
        )
        self.assertEqual(await self.ask("app", 1, [IPv4Address]), [IPv4Address("TCP", "192.0.2.7", 1)])
        self.assertEqual(
            self.asked,
            [
                ("app", None, socket.AF_UNSPEC, socket.SOCK_STREAM),
                ("app", None, socket.AF_INET, socket.SOCK_STREAM),
            ],
        )

    async def test_shared(self) -> None:
        """Those who ask for the same name at once share a look-up; the next one asks the system again."""
        waiting = [self.ask("app", port) for port in range(100)]
        self.answers.release(1)
        found = await gatherResults(waiting)
        self.assertEqual([each[1].port for each in found], list(range(100)))
        self.assertEqual(len(self.asked), 1)
        self.answers.release(1)
        await self.ask("app")
        self.assertEqual(len(self.asked), 2)

    async def test_broken_receiver(self) -> None:
        """Where one of those who asked fails at the answer, the others have it all the same."""
        broken = Receiver()
        broken.addressResolved = None  # type: ignore[assignment,method-assign]
        self.resolver.resolveHostName(broken, "app", 80)
        waiting = self.ask("app")
        self.answers.release(1)
        self.assertEqual(len(await waiting), 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_none(self) -> None:
        """A name that the system does not know, or has no form for, has no address."""
        self.answers.release(2)
        self.assertEqual(await self.ask("unknown"), [])
        self.assertEqual(await self.ask("a..b"), [])

    async def test_bounded(self) -> None:
        """Names beyond the limit have no address at once; those that wait are looked up by a few threads."""
        self.patch(names, "MOST_NAMES", 40)
        waiting = [self.ask(f"n{number}") for number in range(40)]
        self.assertEqual(self.successResultOf(self.ask("one-more")), [])
        running = [thread for thread in threading.enumerate() if "openhqm-names" in thread.name]
        self.assertLessEqual(len(running), names.MOST_THREADS)
        self.assertTrue(all(thread.daemon for thread in running))
        self.answers.release(40)
        await gatherResults(waiting)
