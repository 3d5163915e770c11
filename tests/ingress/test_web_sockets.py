"""WebSockets, by a client that shares no code with ours: who may open one, what is said, and what a bad client gets."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from openhqm.ingress.socket_sessions import MOST_REF, MOST_SUBSCRIPTIONS
from openhqm.policy.api_keys import Key, Role
from tests.brokers import RedisServer
from tests.ingress.test_access import made, write
from tests.servers import Server

UNKNOWN = "00000000-0000-4000-8000-000000000000"
JOBS = """
from pathlib import Path
from twisted.internet.task import deferLater

async def handle(work):
    from twisted.internet import reactor
    while work.payload == "held" and not Path("go").exists():
        await deferLater(reactor, 0.01)
    return work.payload
"""
SECONDS = 30


class SocketCase(SynchronousTestCase):
    """A server, and clients of it"""

    def settings(self) -> dict[str, str]:
        return {"OPENHQM_QUEUE__TYPE": "memory"}

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "jobs.py").write_text(JOBS)
        self.server = Server(self.directory, OPENHQM_WORKER__HANDLER="jobs:handle", **self.settings())
        self.server.start()
        self.addCleanup(lambda: self.server.process and self.server.process.poll() is None and self.server.stop())

    def connect(self, **arguments: Any) -> ClientConnection:
        """A WebSocket."""
        url = f"ws://127.0.0.1:{self.server.port}/api/v1/ws"
        client = connect(url, compression=None, open_timeout=SECONDS, close_timeout=1, **arguments)
        self.addCleanup(client.close)
        return client

    def say(self, client: ClientConnection, **members: Any) -> Any:
        """Send a message, and return the next one that comes."""
        client.send(json.dumps(members))
        return self.hear(client)

    def hear(self, client: ClientConnection) -> Any:
        """The next message."""
        return json.loads(client.recv(timeout=SECONDS))

    def hear_until(self, client: ClientConnection, event: str) -> list[Any]:
        """The next messages, up to one with this event."""
        found = [self.hear(client)]
        while found[-1].get("event") != event:
            found.append(self.hear(client))
        return found

    def refused(self, **arguments: Any) -> tuple[int, Any]:
        """Status code and header fields of the answer where there is no WebSocket to be had."""
        with self.assertRaises(InvalidStatus) as raised:
            self.connect(**arguments)
        response = raised.exception.response
        return response.status_code, response.headers

    def closed(self, client: ClientConnection) -> tuple[int | None, str]:
        """Code and reason of the end, once it has come."""
        try:
            while True:
                client.recv(timeout=SECONDS)
        except ConnectionClosed as error:
            assert error.rcvd is not None, error
            return error.rcvd.code, error.rcvd.reason


class TalkTests(SocketCase):
    """Where callers need no key"""

    def test_submit_and_listen(self) -> None:
        """A request is submitted, listened to from its beginning, and told to have completed, on one connection."""
        client = self.connect()
        accepted = self.say(client, ref=1, submit={"payload": "hello", "metadata": {"tags": ["a"]}})
        id = accepted["accepted"]["correlation_id"]
        self.assertEqual((accepted["ref"], accepted["accepted"]["status"]), (1, "PENDING"))
        self.assertEqual(self.say(client, ref="mine", subscribe=[id]), {"ref": "mine", "subscribed": [id]})
        events = self.hear_until(client, "completed")
        self.assertEqual([each["ref"] for each in events], ["mine"] * len(events))
        self.assertEqual([each["id"] for each in events], [str(number + 1) for number in range(len(events))])
        self.assertEqual(events[-1]["data"]["result"], "hello")
        self.assertEqual(self.hear(client), {"ref": "mine", "ended": True})

    def test_tags(self) -> None:
        """A subscription to tags tells the endings of the requests that have one, and goes on after a cursor."""
        client, other = self.connect(), self.connect()
        self.assertEqual(self.say(client, ref=1, subscribe=["a", "b"]), {"ref": 1, "subscribed": ["a", "b"]})
        cursor = self.hear(client)["id"]
        for tag in ("c", "b"):
            self.server.submit(tag, tags=[tag])
        (event,) = self.hear_until(client, "completed")
        self.assertEqual((event["ref"], event["data"]["result"]), (1, "b"))
        self.say(other, ref=2, subscribe=["c"], last_event_id=cursor)
        self.assertEqual(self.hear_until(other, "completed")[-1]["data"]["result"], "c")

    def test_everything(self) -> None:
        """A subscription to nothing in particular tells all endings."""
        client = self.connect()
        self.say(client, ref=1, subscribe=[])
        self.server.submit("one")
        self.assertEqual(self.hear_until(client, "completed")[-1]["data"]["result"], "one")

    def test_unsubscribed(self) -> None:
        """Behind the answer to an unsubscription none of its events comes, and its name can be used again."""
        client = self.connect()
        held = self.server.submit("held")
        self.say(client, ref="a", subscribe=[held])
        self.hear_until(client, "processing")
        self.assertEqual(self.say(client, ref="b", unsubscribe="a"), {"ref": "b", "unsubscribed": "a"})
        (self.directory / "go").touch()
        self.assertEqual(self.server.response(held)["status"], "COMPLETED")
        self.assertEqual(self.say(client, ref="a", subscribe=[held], last_event_id="2")["subscribed"], [held])
        self.assertEqual([each["event"] for each in self.hear_until(client, "completed")], ["completed"])

    def test_key(self) -> None:
        """A submission that is repeated under the same key is the same request, also of another connection."""
        message = {"submit": {"payload": 1}, "idempotency_key": "k"}
        one = self.say(self.connect(), **message)["accepted"]["correlation_id"]
        self.assertEqual(self.say(self.connect(), **message)["accepted"]["correlation_id"], one)
        status, _, body = self.server.ask("POST", "/api/v1/submit", b'{"payload": 1}', {"Idempotency-Key": "k"})
        self.assertEqual((status, json.loads(body)["correlation_id"]), (202, one))

    def test_many(self) -> None:
        """Messages are answered each by itself, and one that waits holds up no other."""
        client = self.connect()
        for number in range(300):
            client.send(json.dumps({"ref": number, "submit": {"payload": number}}))
        answers = [self.hear(client) for _ in range(300)]
        self.assertEqual({each["ref"] for each in answers}, set(range(300)))
        refused = [each for each in answers if "problem" in each]
        self.assertTrue(all(each["problem"]["status"] == 429 for each in refused), refused[:1])

    def test_wrong(self) -> None:
        """A message that cannot be obeyed gets a problem that names what is wrong, and the connection goes on."""
        client = self.connect()
        for text, status, field in (
            ("", 422, "message"),
            ("[]", 422, "message"),
            ("{}", 422, "message"),
            ('{"subscribe": ["a"], "submit": {}}', 422, "message"),
            ('{"nosuch": 1}', 422, "message"),
            ('{"subscribe": "a", "ref": 1}', 422, "message"),
            ('{"subscribe": ["a"]}', 422, "ref"),
            (json.dumps({"subscribe": ["a"], "ref": "x" * (MOST_REF + 1)}), 422, "ref"),
            (json.dumps({"subscribe": [UNKNOWN, "a"], "ref": 1}), 422, "subscribe"),
            (json.dumps({"subscribe": [""], "ref": 1}), 422, "subscribe"),
            (json.dumps({"subscribe": ["x"] * 10_000, "ref": 1}), 422, "subscribe"),
            (json.dumps({"subscribe": [UNKNOWN], "ref": 1}), 404, None),
            (json.dumps({"subscribe": [UNKNOWN], "ref": 1, "last_event_id": "x"}), 422, "last_event_id"),
            (json.dumps({"unsubscribe": 1}), 422, "unsubscribe"),
            (json.dumps({"submit": {"nosuch": 1}}), 422, "nosuch"),
            (json.dumps({"submit": {"payload": 1}, "idempotency_key": "\u00e9"}), 400, None),
        ):
            client.send(text)
            answer = self.hear(client)
            self.assertEqual(answer["problem"]["status"], status, (text[:80], answer))
            self.assertEqual(answer["problem"].get("field"), field, (text[:80], answer))
        self.assertIn("accepted", self.say(client, submit={"payload": 1}))

    def test_bounded(self) -> None:
        """A connection has so many subscriptions and no more, and each name once."""
        client = self.connect()
        for number in range(MOST_SUBSCRIPTIONS):
            self.assertIn("subscribed", self.say(client, ref=number, subscribe=[f"t{number}"]))
            self.hear(client)  # its cursor
        self.assertEqual(self.say(client, ref="more", subscribe=["t"])["problem"]["field"], "subscribe")
        self.assertEqual(self.say(client, ref=1, subscribe=["t"])["problem"]["field"], "ref")

    def test_drained(self) -> None:
        """A process that stops tells its clients, and does not wait for one that does not answer."""
        client, silent = self.connect(), self.connect()
        silent.socket.setblocking(True)
        self.say(client, ref=1, subscribe=["a"])
        stopping = threading.Thread(target=self.server.stop)
        stopping.start()
        self.assertEqual(self.closed(client)[0], 1001)
        stopping.join(SECONDS)
        self.assertFalse(stopping.is_alive())


class OnSqliteTests(TalkTests):
    """On the embedded file"""

    def settings(self) -> dict[str, str]:
        return {}


class OnRedisTests(TalkTests):
    """On Redis"""

    def settings(self) -> dict[str, str]:
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        return {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}


class AdmissionTests(SocketCase):
    """Where callers need a key, and pages an origin"""

    def settings(self) -> dict[str, str]:
        path = self.directory / "keys.json"
        roles = {"reader": {Role.READ}, "both": {Role.READ, Role.SUBMIT}, "writer": {Role.SUBMIT}, "globex": set(Role)}
        self.secrets, self.keys = {}, {}
        for letter, (name, some) in zip("abcd", roles.items(), strict=True):
            self.secrets[name], key = made(letter, frozenset(some))
            tenant = "globex" if name == "globex" else "acme"
            self.keys[name] = Key(key.id, key.digest, tenant, key.roles, key.created)
        write(path, *self.keys.values())
        return {
            "OPENHQM_QUEUE__TYPE": "memory",
            "OPENHQM_AUTH__TYPE": "api_key",
            "OPENHQM_AUTH__KEYS_FILE": str(path),
            "OPENHQM_CORS__ORIGINS": '["https://app.example.com"]',
            "OPENHQM_TENANTS": json.dumps([{"name": "acme", "limits": {"streams": 2}}, {"name": "globex"}]),
        }

    def keyed(self, name: str, **arguments: Any) -> ClientConnection:
        return self.connect(additional_headers={"OpenHQM-Key": self.secrets[name]}, **arguments)

    def test_keys(self) -> None:
        """401 without a good key, 403 without the role; each message needs the role of what it asks for."""
        self.assertEqual(self.refused()[0], 401)
        self.assertEqual(self.refused(additional_headers={"OpenHQM-Key": "ohqm_wrong"})[0], 401)
        self.assertEqual(self.refused(additional_headers={"OpenHQM-Key": self.secrets["writer"]})[0], 403)
        reader = self.keyed("reader")
        self.assertEqual(self.say(reader, submit={"payload": 1})["problem"]["status"], 403)
        self.assertIn("accepted", self.say(self.keyed("both"), submit={"payload": 1}))

    def test_offered_key(self) -> None:
        """A page, which can set no header field, offers its key as a protocol, and gets none back but ours."""
        client = self.connect(subprotocols=["openhqm", f"openhqm.key.{self.secrets['reader']}"])
        self.assertEqual(client.subprotocol, "openhqm")
        self.assertEqual(self.refused(subprotocols=["openhqm", "openhqm.key.ohqm_wrong"])[0], 401)
        self.assertNotIn(self.secrets["reader"], self.server.log())

    def test_tenants(self) -> None:
        """What another tenant has submitted is unknown, and its endings are not told."""
        mine, theirs = self.keyed("both"), self.keyed("globex")
        self.say(theirs, ref=1, subscribe=[])
        self.hear(theirs)  # its cursor
        id = self.say(mine, submit={"payload": "mine"})["accepted"]["correlation_id"]
        self.assertEqual(self.say(theirs, ref=2, subscribe=[id])["problem"]["status"], 404)
        self.assertIn("accepted", self.say(theirs, submit={"payload": "theirs"}))
        self.assertEqual(self.hear_until(theirs, "completed")[-1]["data"]["result"], "theirs")

    def test_streams_of_a_tenant(self) -> None:
        """A subscription to several requests takes a place for each, and is refused whole where there are fewer."""
        client = self.keyed("both")
        held = {"payload": 1, "metadata": {"delay": 3600}}
        ids = [self.say(client, submit=held)["accepted"]["correlation_id"] for _ in range(3)]
        self.assertEqual(self.say(client, ref=1, subscribe=ids)["problem"]["status"], 429)
        self.assertEqual(self.say(client, ref=2, subscribe=ids[:2])["subscribed"], ids[:2])

    def test_origins(self) -> None:
        """A page may connect where its origin is allowed or the gateway's own; another gets 403, also with a key."""
        for origin in (None, "https://app.example.com", f"http://127.0.0.1:{self.server.port}"):
            self.keyed("reader", origin=origin).close()
        for origin in ("https://evil.example.com", "null", "https://app.example.com.evil.com"):
            headers = {"OpenHQM-Key": self.secrets["reader"]}
            self.assertEqual(self.refused(origin=origin, additional_headers=headers)[0], 403, origin)

    def test_revoked(self) -> None:
        """A key that is revoked opens nothing more, and what it has opened is closed within a ping."""
        client = self.keyed("both")
        write(self.directory / "keys.json", self.keys["reader"])
        self.server.until(lambda: self.say(client, submit={"payload": 1}).get("problem"), "it is still good", 10)
        self.assertEqual(self.closed(client), (1008, "the credential is no longer good"))


class HandshakeTests(SocketCase):
    """Requests and frames as no client of good will sends them"""

    KEY = "dGhlIHNhbXBsZSBub25jZQ=="

    def raw(self, *changed: str, method: str = "GET", version: str = "HTTP/1.1", body: str = "") -> socket.socket:
        """A connection on which a handshake was sent, with lines that replace or add to the usual ones."""
        lines = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.KEY,
        }
        more = []
        for line in changed:
            name, _, value = line.partition(": ")
            if name.startswith("+"):
                more.append(line[1:])
            elif value:
                lines[name] = value
            else:
                lines.pop(name)
        sent = [f"{method} /api/v1/ws {version}", *(f"{name}: {value}" for name, value in lines.items()), *more]
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=SECONDS)
        self.addCleanup(connection.close)
        connection.sendall("\r\n".join((*sent, "", body)).encode())
        return connection

    def head(self, connection: socket.socket) -> bytes:
        found = b""
        while b"\r\n\r\n" not in found and (data := connection.recv(65536)):
            found += data
        return found

    def test_answer(self) -> None:
        """The example of RFC 6455, section 1.3, gets the answer that stands there."""
        head = self.head(self.raw())
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertIn(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", head)
        self.assertNotIn(b"Sec-WebSocket-Protocol", head)

    def test_refused(self) -> None:
        """What is no handshake of this version is refused, with what would be one."""
        for lines, arguments, status in (
            (("Upgrade",), {}, 426),
            (("Upgrade: h2c",), {}, 426),
            (("Connection: keep-alive",), {}, 426),
            (("Sec-WebSocket-Version: 8",), {}, 426),
            (("Sec-WebSocket-Version",), {}, 426),
            (("Sec-WebSocket-Key",), {}, 400),
            (("Sec-WebSocket-Key: short",), {}, 400),
            (("Sec-WebSocket-Key: !!!!",), {}, 400),
            ((f"+Sec-WebSocket-Key: {self.KEY}",), {}, 400),
            (("+Content-Length: 2",), {"body": "{}"}, 400),
            (("+Origin: https://evil.example.com",), {}, 403),
            ((), {"version": "HTTP/1.0"}, 426),
        ):
            head = self.head(self.raw(*lines, **arguments))  # type: ignore[arg-type]
            self.assertEqual(head.split(b" ")[1], b"%d" % status, (lines, head))
            if status == 426:
                self.assertIn(b"upgrade: websocket", head.lower(), lines)

    def test_frames(self) -> None:
        """Frames that break the protocol, or a message too long, end the connection with the code that says why."""
        too_long = b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0" + b"x" * 100
        for frame, code in (
            (b"\x81\x02{}", 1002),  # not masked
            (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
            (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
            (b"\x80\x80\0\0\0\0", 1002),  # continues nothing
            (b"\x09\x80\0\0\0\0", 1002),  # a control frame in fragments
            (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # not UTF-8
            (b"\x82\x80\0\0\0\0", 1003),  # binary
        ):
            connection = self.raw()
            self.head(connection)
            connection.sendall(frame)
            self.assertEqual(self.close_code(connection, frame), code, frame)
        connection = self.raw()
        self.head(connection)
        with contextlib.suppress(OSError):  # it is cut off in the middle
            connection.sendall(too_long)
            while True:
                connection.sendall(b"x" * 1_000_000)
        self.assertEqual(self.server.ask("GET", "/health/live")[0], 200)

    def close_code(self, connection: socket.socket, sent: bytes) -> int:
        found = b""
        while data := connection.recv(65536):
            found += data
            if len(found) >= 4:
                break
        self.assertEqual(found[:1], b"\x88", (found, sent))
        code: int = struct.unpack("!H", found[2:4])[0]
        return code

    def test_early(self) -> None:
        """A client that sends frames before the answer is cut off: they are no next request."""
        connection = self.raw(body="GET /api/v1/status/x HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(connection.recv(65536), b"")

    def test_gone(self) -> None:
        """A client that closes its side without a word, or is gone, leaves nothing behind."""
        for leave in (lambda one: one.shutdown(socket.SHUT_WR), lambda one: one.close()):
            connection = self.raw()
            self.head(connection)
            self.assertIn("openhqm_open_sockets 1.0", self.metrics())
            leave(connection)
            self.server.until(lambda: "openhqm_open_sockets 0.0" in self.metrics(), "it is still open")

    def test_never_reads(self) -> None:
        """Of 8 MB for a socket that never reads, as much is written as the kernel takes. No other client is held up."""
        connection = self.raw()
        self.head(connection)
        text = json.dumps({"ref": 1, "subscribe": []}).encode()
        connection.sendall(b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text)
        ids = []
        for _ in range(2):
            body = {"requests": [{"payload": "x" * 40_000}] * 100}
            answer = json.loads(self.server.ask("POST", "/api/v1/batch", body)[2])
            ids += [each["correlation_id"] for each in answer["accepted"]]
        for id in (*ids, self.server.submit("last")):
            self.assertEqual(self.server.response(id)["status"], "COMPLETED")
        self.server.until(lambda: self.counted("paused") > 0, "it was not paused")
        self.assertLess(self.counted("sent"), 150)  # a kernel takes 4 MiB at most

    def counted(self, what: str) -> float:
        """How often that has happened on streams of endings."""
        (found,) = re.findall(rf'openhqm_ending_streams_events_total{{what="{what}"}} ([0-9.]+)', self.metrics())
        return float(found)

    def metrics(self) -> str:
        return self.server.ask("GET", "/metrics")[2].decode()
