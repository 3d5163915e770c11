"""Tenants are apart: what one of them has submitted does not exist for another, whatever the other knows and asks."""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.access import OPEN, TABLE
from openhqm.policy.api_keys import Key, Role
from tests.brokers import RedisServer
from tests.ingress.test_access import made, write
from tests.servers import Server

UNKNOWN = "00000000-0000-4000-8000-000000000000"
JOBS = """
async def handle(work):
    if work.payload == "wait":
        from twisted.internet.defer import Deferred
        await Deferred()
    if work.payload == "fail":
        raise ValueError("no luck")
    return work.payload
"""


class TenantsCase(SynchronousTestCase):
    """A server, and keys of the tenants ``acme`` and ``globex``"""

    backend: dict[str, str] = {"OPENHQM_QUEUE__TYPE": "memory"}

    def settings(self) -> dict[str, str]:
        return self.backend

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "jobs.py").write_text(JOBS)
        path = self.directory / "keys.json"
        self.secrets: dict[str, str] = {}
        keys = []
        for letter, name, roles in (
            ("a", "acme", set(Role)),
            ("b", "globex", set(Role)),
            ("c", "acme's other", {Role.READ, Role.CANCEL}),
        ):
            self.secrets[name], key = made(letter, frozenset(roles))
            tenant = "globex" if name == "globex" else "acme"
            keys.append(Key(key.id, key.digest, tenant, key.roles, key.created))
        write(path, *keys)
        self.server = Server(
            self.directory,
            OPENHQM_AUTH__TYPE="api_key",
            OPENHQM_AUTH__KEYS_FILE=str(path),
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_WORKER__MAX_RETRIES="0",
            OPENHQM_SERVER__DRAIN_SECONDS="1",  # some handlers never return
            **self.settings(),
        )
        self.server.start()
        self.addCleanup(self.server.stop)

    def ask(self, who: str, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, bytes]:
        """The status code and the body that the caller gets."""
        sent = {"OpenHQM-Key": self.secrets[who], **{name.replace("_", "-"): value for name, value in fields.items()}}
        status, _, answer = self.server.ask(method, path, body, sent)
        return status, answer

    def submit(self, who: str, payload: Any, **fields: str) -> str:
        """The id of a request on behalf of the caller."""
        status, body = self.ask(who, "POST", "/api/v1/submit", {"payload": payload}, **fields)
        self.assertEqual(status, 202, body)
        id: str = json.loads(body)["correlation_id"]
        return id


class ApartTests(TenantsCase):
    """On the queue in memory"""

    def test_every_route(self) -> None:
        """On each route with an id, another tenant's request gets the bytes that an id never given out gets.

        Whether it waits, is worked on, has completed or failed: for its own tenant the route serves it.
        """
        ids = [self.submit("acme", payload) for payload in ("wait", "done", "fail")]
        for id in ids[1:]:
            self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{id}?wait=10")[0], 200)
        routes = [(method, path) for method, path, role in TABLE if "<correlation_id>" in path and role is not OPEN]
        self.assertGreater(len(routes), 4)
        for method, route in routes:
            for id in ids:
                for query in ("", "?wait=1") if "response" in route else ("",):
                    found = self.ask("globex", method, route.replace("<correlation_id>", id) + query)
                    unknown = self.ask("globex", method, route.replace("<correlation_id>", UNKNOWN) + query)
                    self.assertEqual(found[0], 404, (route, id))
                    self.assertEqual(found[1].replace(id.encode(), UNKNOWN.encode()), unknown[1], (route, id))
        # None of this has changed anything, and a key of the same tenant with the role may go on.
        self.assertEqual(json.loads(self.ask("acme", "GET", f"/api/v1/status/{ids[0]}")[1])["status"], "PROCESSING")
        for method, route in routes:
            path = route.replace("<correlation_id>", ids[1])
            self.assertIn(self.ask("acme's other", method, path)[0], (200, 409), route)
        self.assertEqual(self.ask("acme's other", "POST", f"/api/v1/cancel/{ids[0]}")[0], 202)

    def test_keys(self) -> None:
        """An Idempotency-Key is the tenant's: the same key of another one is another request, also in a batch."""
        first = self.submit("acme", 1, Idempotency_Key="k")
        self.assertEqual(self.submit("acme", 1, Idempotency_Key="k"), first)
        other = self.submit("globex", 2, Idempotency_Key="k")  # another body: it would be a conflict
        self.assertNotEqual(other, first)
        batch = {"requests": [{"payload": 1}]}
        ids = set()
        for who in ("acme", "globex", "acme"):
            status, body = self.ask(who, "POST", "/api/v1/batch", batch, Idempotency_Key="k")
            self.assertEqual(status, 202)
            ids.add((who, json.loads(body)["accepted"][0]["correlation_id"]))
        self.assertEqual(len(ids), 2)

    def test_waiting(self) -> None:
        """Who waits for an answer gets it: with ``Prefer: wait``, as events, and from a batch."""
        status, body = self.ask("acme", "POST", "/api/v1/submit", {"payload": "done"}, Prefer="wait=10")
        self.assertEqual((status, json.loads(body)["result"]), (200, "done"))
        status, body = self.ask("acme", "POST", "/api/v1/submit", {"payload": "done"}, Accept="text/event-stream")
        self.assertEqual(status, 200)
        self.assertIn(b"event: completed", body)
        _, body = self.ask("acme", "POST", "/api/v1/batch", {"requests": [{"payload": "done"}]})
        id = json.loads(body)["accepted"][0]["correlation_id"]
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{id}?wait=10")[0], 200)

    def test_streams_over_many(self) -> None:
        """A stream of all endings, or of a tag, tells a tenant its own alone; an id of another is unknown."""
        streams = {}
        for who, query, origin in (
            ("acme", "", {}),
            ("acme", "?tag=a", {"Origin": "https://example.com"}),
            ("globex", "", {}),
            ("globex", "?tag=a", {}),
        ):
            connection = self.server.connection()
            self.addCleanup(connection.close)
            connection.request("GET", f"/api/v1/events{query}", headers={"OpenHQM-Key": self.secrets[who], **origin})
            streams[who, query] = connection.getresponse()
        ids: dict[str, list[str]] = {}
        for who in ("acme", "globex", "acme"):
            body = {"payload": "done", "metadata": {"tags": ["a"], "tenant": "acme"}}
            _, answer = self.ask(who, "POST", "/api/v1/submit", body)
            id = json.loads(answer)["correlation_id"]
            ids.setdefault(who, []).append(id)
            self.assertEqual(self.ask(who, "GET", f"/api/v1/response/{id}?wait=10")[0], 200)
        for (who, query), stream in streams.items():
            told: list[str] = []
            while len(told) < len(ids[who]):
                line = stream.readline()
                self.assertTrue(line, "the stream has ended")
                if line.startswith(b"data: ") and line != b"data: {}\n":
                    told.append(json.loads(line[6:])["correlation_id"])
            self.assertEqual(told, ids[who], (who, query))
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/events?id={ids['acme'][0]}")[0], 200)
        unknown = self.ask("globex", "GET", f"/api/v1/events?id={UNKNOWN}")
        found = self.ask("globex", "GET", f"/api/v1/events?id={ids['acme'][0]}")
        self.assertEqual(found[1].replace(ids["acme"][0].encode(), UNKNOWN.encode()), unknown[1])
        self.assertEqual(self.ask("globex", "GET", f"/api/v1/events?id={ids['globex'][0]}&id={ids['acme'][0]}")[0], 404)

    def test_named_by_a_caller(self) -> None:
        """What a caller writes into its submission does not make it another tenant's."""
        body = {"payload": {"tenant": "globex"}, "metadata": {"tenant": "globex"}, "headers": {"tenant": "globex"}}
        id = json.loads(self.ask("acme", "POST", "/api/v1/submit", body)[1])["correlation_id"]
        self.assertEqual(self.ask("globex", "GET", f"/api/v1/status/{id}")[0], 404)
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{id}?wait=10")[0], 200)


class ApartOnSqliteTests(ApartTests):
    """On the embedded file"""

    backend: dict[str, str] = {}

    def test_restarted(self) -> None:
        """A process that is killed and started again knows whose everything is."""
        id = self.submit("acme", "done")
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{id}?wait=10")[0], 200)
        self.server.kill()
        self.server.start()
        self.assertEqual(self.ask("globex", "GET", f"/api/v1/status/{id}")[0], 404)
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/status/{id}")[0], 200)


class ApartOnRedisTests(ApartTests):
    """On Redis"""

    def settings(self) -> dict[str, str]:
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        return {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}


class RedrivenTests(TenantsCase):
    """A dead letter that is redriven"""

    def test_redriven(self) -> None:
        """The new request is its tenant's, too."""
        id = self.submit("acme", "fail")
        self.assertEqual(json.loads(self.ask("acme", "GET", f"/api/v1/response/{id}?wait=10")[1])["status"], "FAILED")
        (letter,) = json.loads(self.ask("acme", "GET", "/api/v1/dead-letters")[1])["dead_letters"]
        self.assertEqual((letter["correlation_id"], letter["tenant"]), (id, "acme"))
        status, body = self.ask("acme", "POST", f"/api/v1/dead-letters/{letter['number']}/redrive", {})
        self.assertEqual(status, 202, body)
        again = json.loads(body)["correlation_id"]
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{again}?wait=10")[0], 200)
        self.assertEqual(self.ask("globex", "GET", f"/api/v1/status/{again}")[0], 404)


class RowsTests(TenantsCase):
    """Tenants with a row in the configuration"""

    def settings(self) -> dict[str, str]:
        rows = [
            {"name": "acme", "operations": ["built"], "limits": {"bytes_per_second": 1}},
            {"name": "*", "limits": {"requests_per_second": 0.001}},
        ]
        return {**self.backend, "OPENHQM_TENANTS": json.dumps(rows)}

    def test_rows(self) -> None:
        """What a tenant may not ask for is 403, what is too often or too much 429, and another's limit is another's."""
        allowed = {"payload": "done", "metadata": {"operation": "built"}}
        status, body = self.ask("acme", "POST", "/api/v1/submit", {"payload": "done"})
        self.assertEqual((status, json.loads(body)["field"]), (403, "metadata.operation"))
        status, body = self.ask("acme", "POST", "/api/v1/submit", allowed)
        self.assertEqual(status, 429, "the bytes of what was refused were sent all the same")
        self.assertIn("bytes in a second", json.loads(body)["detail"])
        self.submit("globex", "done")
        for path, accept in (("submit", "*/*"), ("submit", "text/event-stream"), ("batch", "*/*")):
            sent: Any = {"requests": [{"payload": 1}]} if path == "batch" else {"payload": 1}
            status, _ = self.ask("globex", "POST", f"/api/v1/{path}", sent, Accept=accept)
            self.assertEqual(status, 429, (path, accept))
        self.assertEqual(self.ask("globex", "GET", f"/api/v1/status/{UNKNOWN}")[0], 404)

    def test_batch(self) -> None:
        """In a batch, what a tenant may not ask for is refused by itself."""
        requests = [{"payload": 1}, {"payload": 1, "metadata": {"operation": "built"}}]
        status, body = self.ask("acme", "POST", "/api/v1/batch", {"requests": requests})
        answer = json.loads(body)
        self.assertEqual((status, len(answer["accepted"])), (202, 1))
        self.assertEqual([each["problem"]["status"] for each in answer["rejected"]], [403])


def reset(connection: Any) -> None:
    """Break the connection off: a client that only closes its side may still read (RFC 9293, section 3.6)."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class PlacesCase(TenantsCase):
    """A tenant that may hold on to one wait and one stream"""

    def settings(self) -> dict[str, str]:
        rows = [{"name": "acme", "limits": {"waits": 1, "streams": 1}}]
        return {**self.backend, "OPENHQM_TENANTS": json.dumps([*rows, {"name": "*"}])}

    def held(self, method: str, path: str, body: Any = None, **fields: str) -> Any:
        """A connection whose request is not answered to its end."""
        connection = self.server.connection()
        self.addCleanup(connection.close)
        sent = {"OpenHQM-Key": self.secrets["acme"], **fields}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        return connection


class PlacesTests(PlacesCase):
    """Tried one after the other"""

    def until(self, status: int, path: str) -> bytes:
        """The body that comes with that status, within ten seconds."""
        found = 0, b""
        deadline = time.monotonic() + 10
        while found[0] != status:
            self.assertLess(time.monotonic(), deadline, found)
            found = self.ask("acme", "GET", path)
        return found[1]

    def test_waits(self) -> None:
        """The second wait is refused, or does not wait; when the first is over, or its caller gone, there is room."""
        id = self.submit("acme", "wait")
        path = f"/api/v1/response/{id}?wait=60"
        first = self.held("GET", path)
        body = self.until(429, f"/api/v1/response/{id}?wait=1")
        self.assertIn(b"waiting calls", body)
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{id}/body?wait=60")[0], 429)
        self.assertEqual(self.ask("acme", "GET", f"/api/v1/response/{id}")[0], 202, "it does not wait")
        status, _ = self.ask("acme", "POST", "/api/v1/submit", {"payload": "wait"}, Prefer="wait=60")
        self.assertEqual(status, 202, "it is accepted, and does not wait")
        other = self.submit("globex", "wait")
        self.assertEqual(self.ask("globex", "GET", f"/api/v1/response/{other}?wait=1")[0], 202)
        reset(first)
        self.until(202, f"/api/v1/response/{id}?wait=1")

    def test_streams(self) -> None:
        """The second stream is refused, of whichever kind, and nothing is accepted; then there is room again."""
        id = self.submit("acme", "wait")
        first = self.held("GET", f"/api/v1/events/{id}")
        self.assertEqual(first.getresponse().status, 200)
        for path in (f"/api/v1/events/{id}", f"/api/v1/events?id={id}", "/api/v1/events?tag=a"):
            status, body = self.ask("acme", "GET", path)
            self.assertEqual((status, b"open event streams" in body), (429, True), path)
        accept = {"Accept": "text/event-stream"}
        self.assertEqual(self.ask("acme", "POST", "/api/v1/submit", {"payload": 1}, **accept)[0], 429)
        other = self.held("GET", "/api/v1/events", **{"OpenHQM-Key": self.secrets["globex"]})
        self.assertEqual(other.getresponse().status, 200)
        reset(first)
        deadline, status = time.monotonic() + 10, 429
        while status == 429:
            self.assertLess(time.monotonic(), deadline)
            connection = self.held("GET", "/api/v1/events")
            status = connection.getresponse().status
        self.assertEqual(status, 200)
        connection.close()


class PlacesAtOnceTests(PlacesCase):
    """Tried at the same time, on Redis: each waits for answers while the others do"""

    def settings(self) -> dict[str, str]:
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        self.backend = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}
        return super().settings()

    def assertOneIsOpened(self, path: str) -> None:
        asked = [self.held("GET", path) for _ in range(20)]
        statuses = sorted(connection.getresponse().status for connection in asked)
        self.assertEqual(statuses, [200] + 19 * [429], path)

    def test_over_many(self) -> None:
        """Of many streams of endings, of a log that is not kept yet, as many are opened as there are places."""
        self.assertOneIsOpened("/api/v1/events?tag=a")

    def test_over_one(self) -> None:
        """So it is with streams over one request."""
        self.assertOneIsOpened(f"/api/v1/events/{self.submit('acme', 'wait')}")


class SharesTests(TenantsCase):
    """Tenants that share the workers, in the embedded file"""

    backend: dict[str, str] = {"OPENHQM_WORKER__COUNT": "1"}

    def settings(self) -> dict[str, str]:
        rows = [{"name": "acme", "limits": {"queued": 20}}, {"name": "globex"}]
        return {**self.backend, "OPENHQM_TENANTS": json.dumps(rows)}

    def test_next(self) -> None:
        """One request is worked on next, or after one, where many of another tenant have waited longer."""
        holds = self.submit("acme", "wait")
        while json.loads(self.ask("acme", "GET", f"/api/v1/status/{holds}")[1])["status"] != "PROCESSING":
            pass
        ids = [("acme", self.submit("acme", "done")) for _ in range(15)]
        ids.append(("globex", self.submit("globex", "done")))
        self.assertEqual(self.ask("acme", "POST", f"/api/v1/cancel/{holds}")[0], 202)
        ended = []
        for who, id in ids:
            status, body = self.ask(who, "GET", f"/api/v1/response/{id}?wait=10")
            self.assertEqual(status, 200, body)
            ended.append((json.loads(body)["completed_at"], who == "acme"))  # several may end in one millisecond
        self.assertIn(False, [of_many for _, of_many in sorted(ended)[:3]])

    def test_queued(self) -> None:
        """As many wait as may: the next is refused, alone and in a batch, and another tenant's is not."""
        holds = self.submit("acme", "wait")
        while json.loads(self.ask("acme", "GET", f"/api/v1/status/{holds}")[1])["status"] != "PROCESSING":
            pass
        batch = {"requests": [{"payload": "wait"}] * 30}
        status, body = self.ask("acme", "POST", "/api/v1/batch", batch)
        answer = json.loads(body)
        self.assertEqual(status, 202)
        self.assertIn(len(answer["accepted"]), (19, 20))  # the first one may not be known to have begun
        self.assertEqual({each["problem"]["status"] for each in answer["rejected"]}, {429})
        status, fields, body = self.server.ask(
            "POST", "/api/v1/submit", {"payload": 1}, {"OpenHQM-Key": self.secrets["acme"]}
        )
        self.assertEqual((status, json.loads(body)["status"]), (429, 429))
        self.assertGreaterEqual(int(fields["retry-after"]), 1)
        self.submit("globex", "wait")
        _, _, metrics = self.server.ask("GET", "/metrics", None, {"OpenHQM-Key": self.secrets["acme"]})
        self.assertIn(b'openhqm_tenant_submissions_total{outcome="accepted",tenant="globex"} 1.0', metrics)
        self.assertIn(b'openhqm_tenant_submissions_total{outcome="limited",tenant="acme"}', metrics)
        self.assertIn(b'openhqm_queue_depth{queue="openhqm-requests.@globex",state="ready"} 1.0', metrics)
        _, _, body = self.server.ask("GET", "/health", None, {"OpenHQM-Key": self.secrets["acme"]})
        told = json.loads(body)["tenants"]
        self.assertEqual(told["acme"], {"queued": len(answer["accepted"]), "limit": 20})
        self.assertEqual(told["globex"], {"queued": 1, "limit": None})

    def test_removed(self) -> None:
        """What waits in the share of a tenant is worked on after a restart without its row, and without any row."""
        for rows in ([{"name": "globex"}], []):
            self.server.stop()
            self.server.environment = {**self.server.environment, "OPENHQM_WORKER__ENABLED": "false"}
            self.server.start()
            id = self.submit("acme", "done")
            self.server.stop()
            changed = {"OPENHQM_WORKER__ENABLED": "true", "OPENHQM_TENANTS": json.dumps(rows)}
            self.server.environment = {**self.server.environment, **changed}
            self.server.start()
            status, body = self.ask("acme", "GET", f"/api/v1/response/{id}?wait=10")
            self.assertEqual((status, json.loads(body)["status"]), (200, "COMPLETED"))
            self.server.environment["OPENHQM_TENANTS"] = self.settings()["OPENHQM_TENANTS"]
