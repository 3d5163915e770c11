"""The HTTP front: what reaches an application, in which order, for how long, and at what price in memory."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1 import reading as http1_reading
from openhqm.http1.channel import HEAD_SECONDS, IDLE_SECONDS, LINGER_SECONDS, MOST_PIPELINED, STALL_SECONDS
from openhqm.http1.messages import Answer
from openhqm.http1.site import AT_ONCE, LEAVING_SECONDS
from tests import hypothesis_profile  # noqa: F401
from tests.http1.connections import Transport, Wire
from tests.http1.strictness import GET, POST, REFUSED, SERVED


class Strict(SynchronousTestCase):
    def test_refused(self) -> None:
        """Each of these gets its status as a problem document, the connection is closed, and no handler ran."""
        for name, (status, data) in REFUSED.items():
            wire = Wire()
            answer = wire.send(data)
            self.assertEqual(wire.statuses(answer), [status], (name, answer))
            self.assertEqual(wire.seen, [], name)
            self.assertTrue(wire.transport.closed, name)
            head, body = answer.split(b"\r\n\r\n", 1)
            self.assertIn(b"Content-Type: application/problem+json", head)
            self.assertIn(b"Connection: close", head)
            self.assertIn(b"Content-Length: %d\r\n" % len(body), head)
            self.assertEqual(json.loads(body)["status"], status)

    def test_served(self) -> None:
        """Each of these is served, and the connection stays as long as its version has it."""
        for name, data in SERVED.items():
            wire = Wire()
            self.assertEqual(wire.statuses(wire.send(data)), [200], name)
            self.assertEqual(len(wire.seen), 1, name)
            self.assertEqual(wire.transport.closed, name == "HTTP/1.0", name)

    def test_what_is_seen(self) -> None:
        """A request reaches the application as it was sent."""
        wire = Wire()
        head = b"PUT http://y/a?b HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head + b"2\r\nhi\r\n0\r\n\r\n")
        (seen,) = wire.seen
        self.assertEqual((seen.method, seen.target, seen.body), (b"PUT", b"/a?b", b"hi"))
        self.assertEqual(
            seen.headers, [(b"a", b"1"), (b"a", b"2"), (b"host", b"x"), (b"transfer-encoding", b"chunked")]
        )

    def test_upgrade_with_a_body(self) -> None:
        """The body of a request that asks for an upgrade is its body, and never the next request."""
        ask = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
        body = GET + b"\r\n"
        for framed in (
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        ):
            wire = Wire()
            self.assertEqual(wire.statuses(wire.send(POST + ask + framed + body)), [200, 200])
            self.assertEqual([(seen.method, seen.body) for seen in wire.seen], [(b"POST", body), (b"GET", b"")])
        self.assertIn(b"upgrade", dict(wire.application.seen[0].headers))
        wire = Wire()
        wire.send(POST + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc" + body)
        self.assertEqual((len(wire.seen), wire.transport.disconnecting), (1, True))

    def test_many_upgrades(self) -> None:
        """As many requests for an upgrade as one read can bring are answered one after the other."""
        wire = Wire()
        answer = wire.send(b"GET / HTTP/1.1\r\nHost:\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n" * 1100)
        for _ in range(30):
            answer += wire.take()
        self.assertEqual(wire.statuses(answer), [200] * 1100)

    def test_chunk_lines_are_for_chunks(self) -> None:
        """Nothing is looked for in a read with no chunked request in it, and nothing of a read is kept."""
        self.patch(http1_reading, "chunks_begin", None)
        self.patch(http1_reading, "ChunkLines", None)
        for name, data in SERVED.items():
            if not _chunked(name):
                wire = Wire()
                answer = wire.send(data[:20]) + wire.send(data[20:])
                self.assertEqual(wire.statuses(answer), [200], name)
                self.assertEqual((wire.protocol._reader._read, wire.protocol._reader._earlier), (b"", []))

    def test_nothing_behind_a_refusal(self) -> None:
        """What follows a refused request on its connection is not looked at."""
        for _, data in REFUSED.values():
            wire = Wire()
            wire.send(data)
            wire.protocol.dataReceived(GET + b"\r\n")
            self.assertEqual((wire.seen, wire.take()), ([], b""))

    def test_lingers(self) -> None:
        """A refused sender can read why, and is cut off when it goes on sending."""
        wire = Wire()
        wire.send(REFUSED["announced long body"][1])
        self.assertTrue(wire.transport.half_closed)
        wire.clock.pump([1.0] * int(LINGER_SECONDS + 2))
        self.assertTrue(wire.transport.aborted)

    def test_lingers_over_what_is_read(self) -> None:
        """An answer before the refusal may be large, and is read to its end as slowly as any other."""
        wire = Wire()
        wire.transport.dataBuffer = b"a" * 100
        wire.send(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n" + REFUSED["no host"][1])
        self.assertTrue(wire.transport.half_closed)
        for left in (60, 20, 10):
            wire.transport.dataBuffer = b"a" * left
            wire.clock.pump([1.0] * int(STALL_SECONDS - 2))
            self.assertFalse(wire.transport.aborted)
        wire.transport.dataBuffer = b""
        wire.clock.pump([1.0] * 2)
        self.assertTrue(wire.transport.aborted)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """``data`` in pieces."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class Differential(SynchronousTestCase):
    """The same bytes are the same requests, however they arrive."""

    @settings(max_examples=300)
    @given(st.data())
    def test_splits(self, data: st.DataObject) -> None:
        """Whole or in pieces: the same answers, the same requests seen, the same end of the connection."""
        names = data.draw(st.lists(st.sampled_from([*SERVED, *REFUSED]), min_size=1, max_size=4))
        stream = b"".join(SERVED[name] if name in SERVED else REFUSED[name][1] for name in names)
        whole, pieces = Wire(), Wire()
        expected = whole.send(stream)
        found = b"".join(pieces.send(piece) for piece in data.draw(split(stream)))
        self.assertEqual(_without_date(found), _without_date(expected))
        self.assertEqual(pieces.seen, whole.seen)
        self.assertEqual(pieces.transport.closed, whole.transport.closed)

    @settings(max_examples=300)
    @given(st.data())
    def test_chunk_lines(self, data: st.DataObject) -> None:
        """A chunked body with strange bytes in it, before and behind others: the same in whole and in pieces."""
        names = data.draw(st.lists(st.sampled_from([*SERVED]), max_size=3))
        names.insert(data.draw(st.integers(0, len(names))), data.draw(st.sampled_from([*filter(_chunked, SERVED)])))
        stream = b"".join(SERVED[name] for name in names if name != "HTTP/1.0")
        place = data.draw(st.integers(stream.lower().index(b"chunked"), len(stream)))
        stream = stream[:place] + data.draw(st.binary(max_size=2) | st.sampled_from([b";", b"fffff"])) + stream[place:]
        whole, pieces = Wire(), Wire()
        expected = whole.send(stream)
        found = b"".join(pieces.send(piece) for piece in data.draw(split(stream)))
        self.assertEqual(_without_date(found), _without_date(expected))
        self.assertEqual(pieces.seen, whole.seen)

    @settings(max_examples=300)
    @given(st.binary(max_size=300))
    def test_noise(self, noise: bytes) -> None:
        """Whatever the bytes: no exception, and no more requests seen than request lines sent."""
        wire = Wire()
        wire.send(noise)
        self.assertLessEqual(len(wire.seen), noise.count(b"HTTP/1."))

    @settings(max_examples=300)
    @given(st.sampled_from(sorted(SERVED)), st.integers(0, 10_000), st.binary(max_size=3))
    def test_mutations(self, name: str, place: int, inserted: bytes) -> None:
        """A few strange bytes in a good request: no exception, and never two requests made of one."""
        data = SERVED[name]
        place %= len(data)
        wire = Wire()
        wire.send(data[:place] + inserted + data[place:])
        self.assertLessEqual(len(wire.seen), 1)


def _chunked(name: str) -> bool:
    return b"chunked" in SERVED[name].lower()


def _without_date(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")]


class Order(SynchronousTestCase):
    def test_pipelined(self) -> None:
        """Pipelined requests are answered in order, on whichever lane."""
        wire = Wire()
        answer = wire.send(b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"/a", b"/short", b"/b")))
        self.assertEqual(answer.split(b"HTTP/1.1 ")[1][-6:], b"web:/a")
        self.assertEqual(answer.split(b"HTTP/1.1 ")[2][-5:], b"short")
        self.assertEqual(answer.split(b"HTTP/1.1 ")[3][-6:], b"web:/b")

    def test_one_at_a_time(self) -> None:
        """A request waits for the one before it; both lanes alike."""
        for first in (b"/hold", b"/slow"):
            wire = Wire()
            self.assertEqual(wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % first + GET + b"\r\n"), b"")
            self.assertEqual(len(wire.seen), 1)
            if first == b"/hold":
                wire.application.held[0].finish()
            else:
                wire.slow[0].callback(Answer(200, b"slow"))
            self.assertEqual(wire.statuses(wire.take()), [200, 200])

    def test_pipeline_is_bounded(self) -> None:
        """Behind a request that takes its time only so much is read; then the peer has to wait."""
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.send((GET + b"\r\n") * (MOST_PIPELINED - 1))
        self.assertEqual(wire.transport.producerState, "producing")
        wire.send(GET + b"\r\n")
        self.assertEqual(wire.transport.producerState, "paused")
        wire.application.held[0].finish()
        self.assertEqual(len(wire.statuses(wire.take())), MOST_PIPELINED + 1)
        self.assertEqual(wire.transport.producerState, "producing")

    def test_pipelined_bodies_are_bounded(self) -> None:
        """Long bodies behind a request that takes its time are not kept by the dozen."""
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        sent = 0
        while wire.transport.producerState == "producing":
            wire.send(POST + b"Content-Length: 100000\r\n\r\n" + b"a" * 100_000)
            sent += 1
        self.assertEqual(sent, 11)
        wire.application.held[0].finish()
        self.assertEqual(len(wire.statuses(wire.take())), sent + 1)
        self.assertEqual(wire.transport.producerState, "producing")
        self.assertEqual(wire.protocol._queued_bytes, 0)

    def test_refusal_behind_a_request(self) -> None:
        """A refusal does not overtake the answers before it."""
        wire = Wire()
        self.assertEqual(wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\nGET / HTTP/1.1\r\n\r\n"), b"")
        wire.send(GET + b"\r\n")
        wire.application.held[0].finish()
        self.assertEqual(wire.statuses(wire.take()), [200, 200, 400])
        self.assertEqual((len(wire.seen), wire.transport.half_closed), (2, True))

    def test_close(self) -> None:
        """A peer that asks for the end gets it after its answer, and is told."""
        for path in (b"/", b"/short"):
            wire = Wire()
            answer = wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
            self.assertIn(b"Connection: close\r\n", answer)
            self.assertTrue(wire.transport.disconnecting)

    def test_drain(self) -> None:
        """A server that is stopping answers what it has begun, says that it closes, and lets the idle go."""
        busy = Wire()
        busy.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        idle = busy.site.buildProtocol(None)
        from tests.http1.connections import Transport

        idle_transport = Transport()
        idle.makeConnection(idle_transport)
        busy.site.drain()
        self.assertTrue(idle_transport.disconnecting)
        self.assertFalse(busy.transport.closed)
        busy.application.held[0].finish()
        self.assertEqual(busy.statuses(busy.take()), [200])
        self.assertTrue(busy.transport.disconnecting)

    def test_leaving(self) -> None:
        """A server that leaves the rest to others serves whoever is connected once more, and says that it closes."""
        for path in (b"/", b"/short"):
            wire = Wire()
            wire.site.leave()
            self.assertFalse(wire.transport.closed)
            answer = wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            self.assertEqual(wire.statuses(answer), [200])
            self.assertIn(b"connection: close\r\n", answer.lower())
            self.assertTrue(wire.transport.disconnecting)

    def test_leaving_while_it_serves(self) -> None:
        """Whose request came before says so, too: nobody sends the next one into a connection that closes."""
        for path in (b"/hold", b"/slow"):
            wire = Wire()
            wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            wire.site.leave()
            for request in wire.application.held:
                request.finish()
            for waiting in wire.slow:
                waiting.callback(Answer(200, b"slow"))
            answer = wire.take()
            self.assertEqual(wire.statuses(answer), [200])
            self.assertIn(b"connection: close\r\n", answer.lower())
            self.assertTrue(wire.transport.disconnecting)

    def test_leaving_what_has_begun(self) -> None:
        """Whose answer had begun without a word of it may ask once more, and is told then; or is let go when idle."""
        for drained in (False, True):
            wire = Wire()
            wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
            wire.application.held[0].write(b"begun")
            wire.site.leave()
            wire.application.held[0].finish()
            self.assertNotIn(b"connection: close", wire.take().lower())
            self.assertFalse(wire.transport.closed)
            if drained:
                wire.site.drain()
            else:
                self.assertIn(b"connection: close\r\n", wire.send(GET + b"\r\n").lower())
            self.assertTrue(wire.transport.disconnecting)

    def test_until_none_is_idle(self) -> None:
        """It can be waited for that nobody is idle, and for that nobody is there; for so long, and no longer."""
        wire = Wire()
        idle, empty = wire.site.none_idle(5), wire.site.empty(5)
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.clock.advance(LEAVING_SECONDS)
        self.successResultOf(idle)
        self.assertNoResult(empty)
        wire.hang_up()
        wire.clock.advance(LEAVING_SECONDS)
        self.successResultOf(empty)
        wire.connect()
        idle, empty = wire.site.none_idle(5), wire.site.empty(5)
        wire.clock.pump([LEAVING_SECONDS] * round(5 / LEAVING_SECONDS - 1))
        self.assertNoResult(idle)
        wire.clock.pump([LEAVING_SECONDS] * 2)
        self.successResultOf(idle)
        self.successResultOf(empty)

    def test_expect(self) -> None:
        """A sender who asks first is told to go on, once the head was found good."""
        wire = Wire()
        self.assertEqual(
            wire.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        self.assertEqual(wire.statuses(wire.send(b"abc")), [200])
        wire = Wire()
        answer = wire.send(POST + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
        self.assertEqual(wire.statuses(answer), [413])

    def test_head(self) -> None:
        """HEAD is answered without a body, and the next answer follows at once."""
        wire = Wire()
        answer = wire.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
        first, second = answer.split(b"HTTP/1.1 ")[1:]
        self.assertTrue(first.endswith(b"\r\n\r\n"))
        self.assertTrue(second.endswith(b"web:/"))

    def test_gone(self) -> None:
        """A peer that goes away is told of to whoever works for it, and what it had pipelined is not begun."""
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
        wire.hang_up()
        self.assertEqual((wire.application.lost, len(wire.seen)), (wire.application.held, 1))
        wire = Wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.hang_up()
        self.assertTrue(wire.slow[0].called)
        self.assertEqual(wire.site.connections, set())


class Time(SynchronousTestCase):
    def drip(self, wire: Wire, data: bytes, seconds: float) -> bytes:
        """A byte at a time, over ``seconds``."""
        answer = b""
        for index in range(len(data)):
            if wire.transport.closed:
                break
            answer += wire.send(data[index : index + 1])
            wire.clock.advance(seconds / len(data))
            answer += wire.take()
        return answer

    def test_slow_head(self) -> None:
        """A head has ten seconds, however busily it drips."""
        wire = Wire()
        answer = self.drip(wire, GET + b"A: " + b"b" * 1000, HEAD_SECONDS * 2)
        self.assertEqual((wire.statuses(answer), wire.transport.closed), ([408], True))

    def test_nothing_sent(self) -> None:
        """A connection on which nothing comes is closed without a word."""
        wire = Wire()
        wire.clock.pump([1.0] * int(HEAD_SECONDS + 2))
        self.assertEqual((wire.take(), wire.transport.disconnecting), (b"", True))

    def test_many(self) -> None:
        """However many have stalled, each is closed in time, and never many of them in one go."""
        wire = Wire()
        transports = [wire.transport]
        for _ in range(10 * AT_ONCE):
            wire.connect()
            transports.append(wire.transport)
        most = closed = 0
        for _ in range(int((HEAD_SECONDS + 3) * 1000)):
            wire.clock.advance(0.001)
            before, closed = closed, sum(transport.disconnecting for transport in transports)
            most = max(most, closed - before)
            if closed == len(transports):
                break
        self.assertEqual((closed, most), (len(transports), AT_ONCE))

    def test_slow_body(self) -> None:
        """A body comes at a kibibyte a second, or not at all."""
        wire = Wire()
        answer = wire.send(POST + b"Content-Length: 50000\r\n\r\n")
        answer += self.drip(wire, b"a" * 5000, 60)
        self.assertEqual(wire.statuses(answer), [408])
        wire = Wire()
        wire.send(POST + b"Content-Length: 50000\r\n\r\n")
        for _ in range(25):
            wire.send(b"a" * 2000)
            wire.clock.advance(1.0)
        self.assertEqual(len(wire.seen), 1)

    def test_idle(self) -> None:
        """Between requests a connection is kept for a while."""
        wire = Wire()
        wire.send(GET + b"\r\n")
        wire.clock.pump([1.0] * int(IDLE_SECONDS - 2))
        self.assertEqual(wire.statuses(wire.send(GET + b"\r\n")), [200])
        wire.clock.pump([1.0] * int(IDLE_SECONDS + 2))
        self.assertTrue(wire.transport.disconnecting)

    def test_long_work(self) -> None:
        """A request that is worked on has no deadline of the connection's."""
        wire = Wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.clock.pump([1.0] * 200)
        self.assertFalse(wire.transport.closed)
        wire.slow[0].callback(Answer(200, b"done"))
        self.assertEqual(wire.statuses(wire.take()), [200])

    def test_stalled_reader(self) -> None:
        """A peer that does not read is served nothing more, and given up after half a minute."""
        wire = Wire()
        wire.send(GET + b"\r\n")
        wire.protocol.pauseProducing()
        wire.send((GET + b"\r\n") * 3)
        self.assertEqual(len(wire.seen), 1)
        self.assertEqual(wire.transport.producerState, "paused")
        wire.clock.pump([1.0] * int(STALL_SECONDS + 2))
        self.assertTrue(wire.transport.aborted)

    def test_slow_reader(self) -> None:
        """A peer that takes a little now and then is served to the end; once it takes nothing, half a minute more."""
        wire = Wire()
        wire.transport.dataBuffer = b"a" * 1000
        wire.protocol.pauseProducing()
        for _ in range(20):
            wire.transport.dataBuffer = wire.transport.dataBuffer[:-10]
            wire.clock.pump([1.0] * int(STALL_SECONDS - 2))
        self.assertFalse(wire.transport.aborted)
        wire.clock.pump([1.0] * 4)
        self.assertTrue(wire.transport.aborted)

    def test_slow_reader_of_the_last(self) -> None:
        """The last answer on a connection may be read slowly too, and not never."""
        for path in (b"/short", b"/"):
            wire = Wire()
            wire.transport.dataBuffer = b"a" * 1000
            wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
            for _ in range(5):
                wire.transport.dataBuffer = wire.transport.dataBuffer[:-10]
                wire.clock.pump([1.0] * int(STALL_SECONDS - 2))
            self.assertFalse(wire.transport.aborted)
            wire.clock.pump([1.0] * 4)
            self.assertTrue(wire.transport.aborted)

    def test_reader_who_comes_back(self) -> None:
        """A peer that reads again is served on."""
        wire = Wire()
        wire.protocol.pauseProducing()
        wire.send((GET + b"\r\n") * 3)
        self.assertEqual(len(wire.seen), 0)
        wire.protocol.resumeProducing()
        self.assertEqual(wire.statuses(wire.take()), [200] * 3)


class Together(SynchronousTestCase):
    """Bounds over all connections."""

    def another(self, wire: Wire) -> Any:
        """One more connection to the same server."""
        protocol = wire.site.buildProtocol(None)
        transport = Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_connections(self) -> None:
        """One more than may be is told so, and when to come again; once one has gone there is room."""
        wire = Wire()
        wire.site.most_connections = 2
        other, _ = self.another(wire)
        _, refused = self.another(wire)
        answer = refused.value()
        self.assertEqual((wire.statuses(answer), refused.disconnecting), ([503], True))
        self.assertIn(b"Retry-After: 1\r\n", answer)
        self.assertEqual(len(wire.site.connections), 2)
        other.connectionLost()
        protocol, transport = self.another(wire)
        protocol.dataReceived(GET + b"\r\n")
        self.assertEqual(wire.statuses(transport.value()), [200])

    def test_announced(self) -> None:
        """A body that would be too much with those under way is refused before it comes, or is asked for."""
        wire = Wire()
        wire.site.most_buffered = 1000
        wire.send(POST + b"Content-Length: 900\r\n\r\n" + b"a" * 800)
        self.assertEqual(wire.site.buffered, 800)
        protocol, transport = self.another(wire)
        protocol.dataReceived(POST + b"Expect: 100-continue\r\nContent-Length: 201\r\n\r\n")
        self.assertEqual(wire.statuses(transport.value()), [503])
        self.assertIn(b"Retry-After: 1\r\n", transport.value())
        protocol, transport = self.another(wire)
        protocol.dataReceived(POST + b"Content-Length: 200\r\n\r\n" + b"a" * 200)
        self.assertEqual(wire.statuses(transport.value()), [200])
        self.assertEqual(wire.statuses(wire.send(b"a" * 100)), [200])
        self.assertEqual(wire.site.buffered, 0)

    def test_come(self) -> None:
        """What was not announced is refused once it is there, and let go of."""
        for head in (b"Transfer-Encoding: chunked\r\n\r\n384\r\n", b"Content-Length: 900\r\n\r\n"):
            wire = Wire()
            wire.site.most_buffered = 1000
            protocol, transport = self.another(wire)
            protocol.dataReceived(POST + b"Content-Length: 900\r\n\r\n")
            wire.send(POST + head + b"a" * 800)
            protocol.dataReceived(b"a" * 300)
            self.assertEqual((wire.statuses(transport.value()), wire.site.buffered), ([503], 800))
            wire.hang_up()
            self.assertEqual(wire.site.buffered, 0)

    def test_waiting_behind_others(self) -> None:
        """Bodies that wait for their turn count, and those of a connection that ends do not."""
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + (POST + b"Content-Length: 3\r\n\r\nabc") * 5)
        self.assertEqual(wire.site.buffered, 15)
        wire.application.held[0].finish()
        self.assertEqual(len(wire.statuses(wire.take())), 6)
        self.assertEqual(wire.site.buffered, 0)
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wire.application.held[0].finish()
        self.assertEqual(wire.site.buffered, 0)

    @settings(max_examples=200)
    @given(st.data())
    def test_nothing_is_forgotten(self, data: st.DataObject) -> None:
        """Whatever comes in whichever pieces: when its connection is gone, nothing counts any more."""
        names = data.draw(st.lists(st.sampled_from([*SERVED, *REFUSED]), min_size=1, max_size=4))
        stream = b"".join(SERVED[name] if name in SERVED else REFUSED[name][1] for name in names)
        wire = Wire()
        for piece in data.draw(split(stream))[: data.draw(st.integers(1, 13))]:
            wire.send(piece)
            self.assertEqual(wire.site.buffered, wire.protocol._buffered)
        wire.hang_up()
        self.assertEqual(wire.site.buffered, 0)


class HalfClosed(SynchronousTestCase):
    """A peer that ends its side behind its last request, as ``nc -N`` does."""

    def test_answered(self) -> None:
        """What was asked is answered, on whichever lane, in order; the last answer says that it is the last."""
        for path in (b"/slow", b"/hold"):
            wire = Wire()
            wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path + GET + b"\r\n")
            self.assertEqual((wire.half_close(), wire.transport.closed), (b"", False))
            self.assertEqual(wire.application.lost, [])
            if path == b"/slow":
                wire.slow[0].callback(Answer(200, b"slow"))
            else:
                wire.application.held[0].finish()
            answer = wire.take()
            self.assertEqual((wire.statuses(answer), wire.transport.disconnecting), ([200, 200], True))
            self.assertEqual(answer.count(b"Connection: close"), 1)
        wire = Wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.half_close()
        wire.slow[0].callback(Answer(200, b"slow"))
        self.assertIn(b"Connection: close", wire.take())

    def test_answered_before(self) -> None:
        """Where everything was answered, the connection is closed."""
        wire = Wire()
        wire.send(GET + b"\r\n")
        self.assertEqual((wire.half_close(), wire.transport.disconnecting), (b"", True))

    def test_within_a_request(self) -> None:
        """Half a request gets its 400 behind the answers before it, and reaches no application."""
        for half in (b"GET / HT", POST + b"Content-Length: 3\r\n\r\nab", POST + b"Transfer-Encoding: chunked\r\n\r\n"):
            wire = Wire()
            wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + half)
            self.assertEqual(wire.half_close(), b"")
            wire.slow[0].callback(Answer(200, b"slow"))
            self.assertEqual(wire.statuses(wire.take()), [200, 400])
            self.assertEqual((len(wire.seen), wire.transport.disconnecting), (1, True))

    def test_not_read_from(self) -> None:
        """Where nothing more can come, nobody asks for more: a reactor would tell of the end again and again."""
        wire = Wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + (GET + b"\r\n") * MOST_PIPELINED)
        self.assertEqual(wire.transport.producerState, "paused")
        wire.half_close()
        wire.slow[0].callback(Answer(200, b"slow"))
        self.assertEqual(len(wire.statuses(wire.take())), MOST_PIPELINED + 1)
        self.assertEqual(wire.transport.producerState, "paused")

    def test_after_a_refusal(self) -> None:
        """A peer that was refused and has understood is not waited for."""
        wire = Wire()
        wire.send(REFUSED["no host"][1])
        wire.half_close()
        self.assertTrue(wire.transport.disconnecting)

    def test_long_work(self) -> None:
        """No deadline of the connection's ends what is still worked on."""
        wire = Wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.half_close()
        wire.clock.pump([1.0] * 200)
        self.assertFalse(wire.transport.closed)


class Producers(SynchronousTestCase):
    def held(self) -> tuple[Wire, Any]:
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        return wire, wire.application.held[0]

    def test_push(self) -> None:
        """Whoever pushes is told when the peer does not read, and when it does again."""
        wire, request = self.held()
        told: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

            def stopProducing(self) -> None:
                told.append("stop")

        request.registerProducer(Producer(), True)
        wire.protocol.pauseProducing()
        wire.protocol.resumeProducing()
        wire.hang_up()
        self.assertEqual(told, ["pause", "resume", "stop"])

    def test_pull(self) -> None:
        """Whoever is pulled is asked piece by piece, not while the peer does not read."""
        wire, request = self.held()
        pieces = [b"a", b"b", b"c", b"d"]

        class Producer:
            def resumeProducing(self) -> None:
                if pieces:
                    request.write(pieces.pop(0))
                    if len(pieces) == 3:  # as a full transport does, in the middle of a write
                        wire.protocol.pauseProducing()
                else:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                pass

        request.registerProducer(Producer(), False)
        wire.take()
        self.assertEqual(len(pieces), 3)
        wire.protocol.resumeProducing()
        self.assertTrue(wire.take().endswith(b"1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n0\r\n\r\n"))
        self.assertEqual(wire.statuses(wire.send(GET + b"\r\n")), [200])

    def test_streaming(self) -> None:
        """A response without a length is chunked for HTTP/1.1, and ended by the end of the connection before."""
        wire, request = self.held()
        request.write(b"abc")
        request.finish()
        self.assertIn(b"3\r\nabc\r\n0\r\n\r\n", wire.take())
        wire = Wire()
        wire.send(b"GET /hold HTTP/1.0\r\n\r\n")
        wire.application.held[0].write(b"abc")
        wire.application.held[0].finish()
        self.assertTrue(wire.take().endswith(b"\r\n\r\nabc"))
        self.assertTrue(wire.transport.disconnecting)

    def test_bug(self) -> None:
        """A bug on the short lane ends the connection and is logged; the server goes on."""
        wire = Wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.slow[0].errback(KeyError("ours"))
        self.assertTrue(wire.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
