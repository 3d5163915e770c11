# -*- test-case-name: tests.mqtt.test_client,tests.mqtt.test_connecting -*-
"""One connection to an MQTT broker: paho, driven by the reactor.

Each connection has a paho client of its own: paho would send again over the next one what the caller was told has
failed. Only what blocks (host name, TCP, TLS, websocket) runs in a thread; in the reactor paho was faster than in a
thread of its own, with half the CPU for each message.

paho is imported when MQTT is configured, and not before.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from openhqm.errors import NotDurable
from openhqm.mqtt.address import LARGEST_PACKET, Address
from openhqm.mqtt.connecting import CLOSED, SILENT, describe, refusal, tls_context, too_late, unreadable
from openhqm.mqtt.reason_codes import granted
from openhqm.mqtt.received import Received, read_publish
from openhqm.mqtt.sockets import BufferedSocket, Descriptor

KEEPALIVE_LOOK_SECONDS = 1.0
MOST_AT_ONCE = 100
"""Packets that are read in one turn of the reactor, so that other connections have theirs."""
MOST_UNCONFIRMED = 10_000
_PUBACK = struct.Struct(">BBH")
NEVER_EXPIRES = 0xFFFF_FFFF

Run = Callable[[Callable[[], Any]], Deferred[Any]]
"""Runs a function that blocks, in a thread, and fires with what it returns."""


class Client:
    """A connection that is logged in; see `openhqm.runtime.reconnecting.Connection`.

    ``session``: the broker keeps what comes for ``client_id`` while there is no connection; else it forgets all with
    the connection. ``receive_maximum`` is how many messages the broker may send that were not acknowledged (MQTT 5; in
    3.1.1 that is the broker's to say). ``received`` is called with each message. ``will`` is a topic and what the
    broker retains there where the connection ends without a DISCONNECT. ``largest`` is the most bytes that a packet of
    the broker may have (MQTT 5). Where it sends more, the rest is read and not kept, and the message has a fault: a
    connection that ends over it would get it again.
    """

    _log = Logger()

    def __init__(
        self,
        address: Address,
        client_id: str,
        reactor: Any,
        received: Callable[[Received], None],
        *,
        session: bool = False,
        receive_maximum: int = 65_535,
        will: tuple[str, bytes] | None = None,
        largest: int | None = None,
    ) -> None:
        from paho.mqtt.client import Client as Paho
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self.lost: Deferred[str] = Deferred()
        self.session_present = False
        self.properties: dict[str, Any] = {}
        self.is_5 = address.protocol == 5
        self._address = address
        self._session = session
        self._reactor = reactor
        self._received = received
        self._largest = LARGEST_PACKET if largest is None else largest
        self._connected: Deferred[None] = Deferred()
        self._over = False
        self._paused_for: str | None = None
        self._spoke_at = 0.0
        self._socket: Descriptor | None = None
        self._buffered: BufferedSocket | None = None
        self._waiting: deque[tuple[tuple[Any, ...], Deferred[int]]] = deque()
        self._unconfirmed: dict[int, Deferred[int]] = {}
        self._asked: dict[int, Deferred[list[Any]]] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._connect_arguments: dict[str, Any] = {}
        clean = {} if self.is_5 else {"clean_session": not session}
        if self.is_5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = NEVER_EXPIRES if session else 0
            properties.ReceiveMaximum = receive_maximum
            if largest is not None:
                properties.MaximumPacketSize = largest
            self._connect_arguments = {"clean_start": not session, "properties": properties}
        paho = self._paho = Paho(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion(address.protocol),
            transport="tcp" if address.path is None else "websockets",
            reconnect_on_failure=False,  # else it would try another protocol, and block
            manual_ack=True,
            **clean,
        )
        paho.max_inflight_messages = 0  # paho does not keep to what the broker allows: that is done here
        if will is not None:
            paho.will_set(*will, 1, True)
        if address.username is not None:
            paho.username_pw_set(address.username, address.password)
        if address.path is not None:
            paho.ws_set_options(path=address.path)
        paho.on_connect = self._on_connect
        paho.on_disconnect = self._on_disconnect
        paho._handle_publish = self._handle_publish  # type: ignore[method-assign, assignment]
        paho.on_publish = self._on_publish
        paho.on_subscribe = lambda _, __, mid, codes, ___: self._answered(mid, codes)
        paho.on_unsubscribe = lambda _, __, mid, codes, ___: self._answered(mid, codes)

    def connect(self, run: Run, seconds: float) -> Deferred[Client]:
        """Connect and log in, within ``seconds`` for each of the two. `NotDurable`. It may be cancelled."""
        self._paho.connect_timeout = seconds
        # An attempt that is given up leaves its thread to run; what that brings is closed.
        run(self._open).addCallbacks(self._opened, lambda failure: self._end(describe(failure.value)))
        connected = self._connected.addTimeout(2 * seconds, self._reactor, too_late)
        return connected.addCallback(lambda _: self).addErrback(self._not_connected)

    def _open(self) -> None:
        if self._address.tls is not None:
            self._paho.tls_set_context(tls_context(self._address))
        address = self._address
        self._paho.connect(address.host, address.port, address.keepalive, **self._connect_arguments)

    def _opened(self, result: None) -> None:
        raw: Any = self._paho.socket()
        if self._over or raw is None:
            self._paho.disconnect()
            self._end(SILENT)
            return
        self._socket = Descriptor(self, raw)
        self._buffered = BufferedSocket.under(self._paho, self._address.path is not None)
        # Else the kernel would keep a second packet back for up to 40 ms.
        self._buffered.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._paho.on_socket_close = lambda *_: self._forget_socket()
        self._paho.on_socket_register_write = lambda *_: self._write_when_possible()
        self._paho.on_socket_unregister_write = lambda *_: self._write_no_more()
        self._reactor.addReader(self._socket)
        if self._paho.want_write():
            self._reactor.addWriter(self._socket)
        self._looking.start(KEEPALIVE_LOOK_SECONDS, now=False)

    def _not_connected(self, failure: Any) -> Any:
        self.abort()
        return failure

    # What is asked

    def publish(
        self, topic: str, payload: bytes, properties: Any = None, *, retain: bool = False, qos: int = 1
    ) -> Deferred[int]:
        """Fires with the reason code of the broker's PUBACK, 0 or `NO_SUBSCRIBERS`; with QoS 0 at once, with 0.

        `NotDurable`: the broker refuses the message, or the connection is over, and nothing is known.
        """
        if self._over:
            return fail(NotDurable("the connection is closed"))
        if len(self._unconfirmed) + len(self._waiting) >= MOST_UNCONFIRMED:
            return fail(NotDurable("the broker does not keep up with what is published", retry_after=1))
        confirmed: Deferred[int] = Deferred()
        self._waiting.append(((topic, payload, qos, retain, properties), confirmed))
        self._publish()
        return confirmed

    def _publish(self) -> None:
        """Send what waits, as much as the broker takes at once."""
        most = self.properties.get("ReceiveMaximum", MOST_UNCONFIRMED)
        while self._waiting and len(self._unconfirmed) < most and not self._over:
            arguments, confirmed = self._waiting.popleft()
            try:
                sent = self._paho.publish(*arguments)
            except ValueError as error:
                confirmed.errback(NotDurable(f"MQTT cannot carry the message: {error}"))
                continue
            if arguments[2]:
                self._unconfirmed[sent.mid] = confirmed
            else:
                confirmed.callback(0)

    def subscribe(self, topic_filter: str, options: Any = None) -> Deferred[None]:
        """Subscribe with QoS 1. `NotDurable` where the broker refuses, or grants QoS 0 only.

        It has no bound of its own: what a session holds may come before the answer, and is read as fast as it is used.
        ``options`` are paho's, for MQTT 5.
        """
        qos = 1 if options is None else 0  # paho takes either
        return self._ask(self._paho.subscribe, topic_filter, qos, options).addCallback(granted, topic_filter)

    def unsubscribe(self, topic_filter: str) -> Deferred[None]:
        """Unsubscribe. What the broker had sent before has come when it fires. `NotDurable`."""
        return self._ask(self._paho.unsubscribe, topic_filter).addCallback(lambda _: None)

    def _ask(self, ask: Callable[..., tuple[int, int | None]], *arguments: Any) -> Deferred[list[Any]]:
        if self._over:
            return fail(NotDurable("the connection is closed"))
        code, mid = ask(*arguments)
        if mid is None or code:
            return fail(NotDurable("the broker cannot be asked now"))
        answer = self._asked[mid] = Deferred()
        return answer

    def acknowledge(self, mid: int) -> None:
        """The broker may forget the message with this packet identifier; 0 is that of a message with QoS 0."""
        if mid and self._buffered is not None and self._socket is not None:
            if not self._buffered.waiting:
                self._reactor.addWriter(self._socket)
            self._paho.socket().send(_PUBACK.pack(0x40, 2, mid))  # type: ignore[union-attr]

    def pause(self, topic: str) -> None:
        """Read nothing more until `resume`: what is on its way stays with the broker.

        What would keep the connection alive is not read, either. So a message of no use, to a topic that has no
        subscriber, tells the broker that this client is there.
        """
        if self._paused_for is None and self._socket is not None:
            self._paused_for, self._spoke_at = topic, self._reactor.seconds()
            self._reactor.removeReader(self._socket)

    def resume(self) -> None:
        """Read on."""
        if self._paused_for is not None:
            self._paused_for = None
            if self._socket is not None:
                self._reactor.addReader(self._socket)
                self._reactor.callLater(0, self.read)

    # The end

    def close(self) -> None:
        """Close it after what was written. What the session keeps stays.

        Acknowledgements count that the broker has read before the next connection takes the session over: so it has to
        answer first.
        """
        self.resume()
        if self._session:
            self.unsubscribe("openhqm/nothing").addBoth(lambda _: self._paho.disconnect())
        else:
            self._paho.disconnect()

    def abort(self) -> None:
        """Close it now."""
        self._end("it was closed")

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if self._looking.running:
            self._looking.stop()
        raw = self._paho.socket()
        self._forget_socket()
        if raw is not None:
            raw.close()
        error = NotDurable(reason)
        unanswered: list[Deferred[Any]] = [self._connected, *self._asked.values(), *self._unconfirmed.values()]
        unanswered += [confirmed for _, confirmed in self._waiting]
        self._unconfirmed, self._asked = {}, {}
        self._waiting.clear()
        for answer in unanswered:
            if not answer.called:
                answer.errback(error)
        self.lost.callback(reason)

    def _forget_socket(self) -> None:
        found, self._socket = self._socket, None
        if found is not None:
            self._reactor.removeReader(found)
            self._reactor.removeWriter(found)

    # What paho and the reactor say

    def read(self) -> None:
        """Read what has come, some of which the reactor cannot see."""
        for _ in range(MOST_AT_ONCE):
            if self._socket is None or self._buffered is None or self._paused_for is not None:
                return
            try:
                packet = None if self._paho._in_packet["command"] else self._buffered.take_publish()
                if packet is None:
                    self._paho.loop_read()
                    del self._paho._in_packet["packet"][self._largest :]
                else:
                    self._paho._last_bytes_received = monotonic()
                    self._message(*packet)
            except Exception as error:  # paho names no errors for what it cannot read
                self._log.failure("reading from the MQTT broker broke down", level=LogLevel.debug)
                self._end(unreadable(describe(error), self._connected.called))
                return
            if self._buffered.waiting:  # a websocket has answered
                self._write_when_possible()
            if not self._buffered.pending():
                return
        self._reactor.callLater(0, self.read)

    def write(self) -> None:
        """Write what waits, in one piece."""
        self._paho.loop_write()
        if self._buffered is None:
            return
        try:
            self._buffered.flush()
        except OSError as error:
            self._end(describe(error))
        else:
            self._write_no_more()

    def _write_when_possible(self) -> None:
        if self._socket is not None:
            self._reactor.addWriter(self._socket)

    def _write_no_more(self) -> None:
        if self._socket is not None and self._buffered is not None and not self._buffered.waiting:
            self._reactor.removeWriter(self._socket)

    def _look(self) -> None:
        if self._paused_for is None:
            self._paho.loop_misc()
        elif self._reactor.seconds() - self._spoke_at >= self._address.keepalive / 2:
            self._spoke_at = self._reactor.seconds()
            self._paho.publish(self._paused_for, b"", 0)

    def _on_connect(self, paho: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._end(refusal(reason))
            return
        self.session_present = flags.session_present
        self.properties = {name: getattr(properties, name) for name in _ANNOUNCED if hasattr(properties, name)}
        if self.properties.get("MaximumQoS", 1) < 1:
            self._end("it carries QoS 0 only, which confirms nothing")
        elif self.properties.get("RetainAvailable", 1) < 1:
            self._end("it keeps no retained messages")
        elif not self._connected.called:
            self._connected.callback(None)

    def _on_disconnect(self, paho: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"the broker has ended it: {reason} (0x{reason.value:02X})")
        elif reason.getName() == "Keep alive timeout":
            self._end("it does not answer")
        else:
            self._end(CLOSED if self._connected.called else SILENT)

    def _handle_publish(self) -> int:
        """In place of paho's, whose objects take longer than all else that is done for a message here."""
        packet = self._paho._in_packet
        del packet["packet"][self._largest :]
        self._message(packet["command"], bytes(packet["packet"]), packet["remaining_length"])
        return 0

    def _message(self, first: int, packet: bytes, size: int = 0) -> None:
        """``size``: how many bytes the broker has sent, where that may be more than are in ``packet``."""
        try:
            came = read_publish(first, packet, self.is_5)
        except ValueError as error:
            self._end(unreadable(error, self._connected.called))
        else:
            if size > self._largest:
                came.fault = f"its packet has {size} bytes, of which the first {self._largest} are read"
            self._received(came)

    def _on_publish(self, paho: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        confirmed = self._unconfirmed.pop(mid, None)
        if confirmed is not None and not confirmed.called:
            if reason.is_failure:
                confirmed.errback(NotDurable(f"the broker refuses the message: {reason} (0x{reason.value:02X})"))
            else:
                confirmed.callback(reason.value)
        self._publish()

    def _answered(self, mid: int, codes: list[Any]) -> None:
        answer = self._asked.pop(mid, None)
        if answer is not None and not answer.called:
            answer.callback(codes)


_ANNOUNCED = ("ReceiveMaximum", "MaximumQoS", "RetainAvailable", "MaximumPacketSize", "SessionExpiryInterval")
