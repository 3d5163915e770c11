"""Clients of a real broker, each with a network of its own in between: what every bench of a product does alike."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory

from openhqm.interfaces import IBroker
from openhqm.testing import BrokerBench
from tests.servers import free_port


class Network(ProxyFactory):
    """What lies between one client and the server."""

    noisy = False

    def __init__(self, server_port: int, own_port: int | None = None) -> None:
        super().__init__("127.0.0.1", server_port)
        self.own_port = own_port or free_port()
        self._connections: list[Any] = []
        self._listening: Any = None

    def buildProtocol(self, addr: Any) -> Any:
        made = super().buildProtocol(addr)
        self._connections.append(made)
        return made

    def accept(self) -> None:
        """From now on connections can be made."""
        self._listening = reactor.listenTCP(self.own_port, self, interface="127.0.0.1")  # type: ignore[attr-defined]

    def cut(self) -> None:
        """Every connection ends."""
        connections, self._connections = self._connections, []
        for connection in connections:
            for end in (connection, connection.peer):
                if end is not None and end.transport is not None:
                    end.transport.abortConnection()

    async def refuse(self) -> None:
        """Every connection ends, and none can be made."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        self.cut()


class NetworkedBench(BrokerBench):
    """On ``server``, which several tests share. ``client`` makes a client that connects to a port of 127.0.0.1."""

    quiet = 0.3

    def __init__(self, server: Any) -> None:
        self.server = server
        self.networks: dict[Any, Network] = {}
        self._away = False

    def client(self, port: int) -> Any:
        raise NotImplementedError

    def stop_server(self) -> None:
        """Stop it so that it keeps what it has confirmed."""
        self.server.kill()

    def network(self) -> Network:
        """The next one between a client and the server."""
        return Network(self.server.port)

    def new(self) -> Any:
        network = self.network()
        if not self._away:
            network.accept()
        broker = self.client(network.own_port)
        self.networks[broker] = network
        return broker

    async def make(self) -> Any:
        broker = self.new()
        await broker.start()
        await broker.when_probed()
        assert broker.unavailable_reason is None, broker.unavailable_reason
        return broker

    def pass_time(self, seconds: float) -> Deferred[None]:
        return deferLater(reactor, seconds)  # type: ignore[arg-type]

    async def disconnect(self, broker: IBroker) -> None:
        self.networks[broker].cut()

    async def away(self) -> None:
        self._away = True
        for network in self.networks.values():
            await network.refuse()

    async def back(self) -> None:
        for network in self.networks.values():
            network.accept()
        self._away = False

    async def restart(self) -> None:
        await self.away()
        self.stop_server()
        self.server.start()
        while not all(broker.unavailable_reason for broker in self.networks):
            await self.pass_time(0.01)
        await self.back()
