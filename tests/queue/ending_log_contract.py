"""What every log of endings promises, as a suite for a bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openhqm.interfaces import IEndingLog
from openhqm.messages import LogPage, Status, Submission
from openhqm.policy.tags import KEPT_SECONDS
from openhqm.testing.bench import TTL, Base


def ending_log_contract(make: Callable[[TestCase], Any]) -> type[TestCase]:
    """The suite for the backend that ``make`` returns."""

    class EndingLogContract(Base):
        def make_bench(self) -> Any:
            return make(self)

        @property
        def log(self) -> Any:
            return self.bench.store.log  # type: ignore[attr-defined]

        async def page(self, after: int = 0, most: int = 100) -> LogPage:
            found: LogPage = await self.do(self.log.read(after, most))
            return found

        async def end(self, **fields: Any) -> str:
            """Accept a request and complete it; its id."""
            accepted = await self.accept(**fields)
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery)))
            return accepted.correlation_id

        async def test_interface(self) -> None:
            """It is a log of endings."""
            verifyObject(IEndingLog, self.log)

        async def test_not_kept(self) -> None:
            """Where no reader asked for it, no ending is written down."""
            await self.end()
            page = await self.page()
            self.assertEqual((page.name, list(page.endings)), ("", []))

        async def test_every_ending(self) -> None:
            """Completed, dead-lettered, cancelled and timed out: each is in it once, in order, without a gap."""
            await self.do(self.log.keep())
            completed = await self.end(metadata={"tags": ["a", "b c\u00e9"]})
            failed = (await self.accept()).correlation_id
            delivery = await self.receive_one()
            await self.do(delivery.dead_letter("broken", self.reply(delivery, status=Status.FAILED)))
            cancelled = (await self.accept(metadata={"tags": ["x"]})).correlation_id
            await self.do(self.bench.store.cancel(cancelled))
            late = (await self.accept(timeout=2.0)).correlation_id
            await self.bench.pass_time(4)
            page = await self.page()
            self.assertEqual(
                [(each.number, each.correlation_id, each.status, each.tags) for each in page.endings],
                [
                    (1, completed, Status.COMPLETED, ("a", "b c\u00e9")),
                    (2, failed, Status.FAILED, ()),
                    (3, cancelled, Status.CANCELLED, ("x",)),
                    (4, late, Status.TIMEOUT, ()),
                ],
            )
            self.assertEqual((page.first, page.last), (1, 4))

        async def test_tenants(self) -> None:
            """An ending says on whose behalf the request was, and what stands in a payload does not."""
            await self.do(self.log.keep())
            await self.end(tenant="acme", metadata={"tags": ["a"]})
            await self.end(payload=b'{"tenant":"acme"}', metadata={"tenant": "acme"})
            cancelled = (await self.accept(tenant="other")).correlation_id
            await self.do(self.bench.store.cancel(cancelled))
            self.assertEqual([each.tenant for each in (await self.page()).endings], ["acme", None, "other"])

        async def test_second_ending(self) -> None:
            """An ending that came too late is not in it."""
            await self.do(self.log.keep())
            id = (await self.accept()).correlation_id
            delivery = await self.receive_one()
            await self.do(self.bench.store.cancel(id))
            await self.do(delivery.settle(self.reply(delivery)))
            self.assertEqual([each.status for each in (await self.page()).endings], [Status.CANCELLED])

        async def test_pages(self) -> None:
            """A page has no more than it was asked for, and goes on behind any number."""
            await self.do(self.log.keep())
            for _ in range(5):
                await self.end()
            self.assertEqual([each.number for each in (await self.page(1, 2)).endings], [2, 3])
            self.assertEqual([each.number for each in (await self.page(3, 10)).endings], [4, 5])
            page = await self.page(5)
            self.assertEqual((list(page.endings), page.last), ([], 5))
            self.assertEqual(list((await self.page(10**14)).endings), [])

        async def test_follow_ups(self) -> None:
            """What no caller asks for is not in it: a callback that was made has an id that no caller knows."""
            await self.do(self.log.keep())
            follow_up = Submission(b"null", keeps_result=False, metadata={"tags": ["a"]})
            accepted = await self.do(self.bench.queue.accept(Submission(b"1"), None, (follow_up,)))
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery)))
            delivery = await self.receive_one()
            self.assertEqual((delivery.request.correlation_id,), accepted.follow_ups)
            await self.do(delivery.settle(self.reply(delivery)))
            page = await self.page()
            self.assertEqual([each.correlation_id for each in page.endings], [accepted.correlation_id])

        async def test_tags_in_the_payload(self) -> None:
            """What looks like tags in a payload is none."""
            await self.do(self.log.keep())
            await self.end(payload=b'{"tags":["a"],"keeps_result":false}')
            self.assertEqual([each.tags for each in (await self.page()).endings], [()])

        async def test_redriven(self) -> None:
            """A request that is redriven has the tags of the one that failed."""
            await self.do(self.log.keep())
            await self.accept(metadata={"tags": ["a"]})
            delivery = await self.receive_one()
            await self.do(delivery.dead_letter("broken", self.reply(delivery, status=Status.FAILED)))
            ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 1))
            await self.do(self.bench.queue.redrive(number))
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery)))
            self.assertEqual([each.tags for each in (await self.page()).endings], [("a",), ("a",)])

        async def test_watched(self) -> None:
            """A reader is told of an ending once it can be read, and is told no more when it has gone."""
            await self.do(self.log.keep())
            told: list[None] = []
            stop = self.log.watch(lambda: told.append(None))
            await self.bench.pass_time(0.01)
            told.clear()
            await self.end()
            await self.bench.pass_time(0.01)
            self.assertTrue(told)
            stop()
            await self.bench.pass_time(0.01)
            told.clear()
            await self.end()
            await self.bench.pass_time(0.01)
            self.assertEqual(told, [])

        async def test_survives_a_crash(self) -> None:
            """The next process goes on in the same log, where the backend survives a crash at all."""
            await self.do(self.log.keep())
            id = await self.end()
            before = await self.page()
            await self.bench.crash()
            after = await self.page()
            if not self.bench.queue.traits.durable:
                self.assertEqual(after.name, "")
                return
            self.assertEqual(
                (after.name, [each.correlation_id for each in after.endings], after.last), (before.name, [id], 1)
            )
            await self.end()
            self.assertEqual((await self.page()).last, 2)

        async def test_goes_on_while_it_is_read(self) -> None:
            """A log that is asked for in time keeps its name, and drops what is older than its time."""
            self.bench.step = 60.0  # type: ignore[attr-defined]
            await self.do(self.log.keep())
            name = (await self.page()).name
            await self.end()
            await self.bench.pass_time(KEPT_SECONDS - 10)
            await self.do(self.log.keep())
            await self.end()
            await self.bench.pass_time(20)
            await self.do(self.log.keep())
            page = await self.page()
            self.assertEqual((page.name, page.first, page.last), (name, 2, 2))
            self.assertTrue(page.follows(name, 1))
            self.assertFalse(page.follows(name, 0))

        async def test_ends_behind_its_last_reader(self) -> None:
            """A log that no reader asked for in time ends, and the next one has another name: none can mistake it."""
            self.bench.step = 60.0  # type: ignore[attr-defined]
            await self.do(self.log.keep())
            name = (await self.page()).name
            await self.end()
            await self.bench.pass_time(KEPT_SECONDS + 10)
            self.assertEqual((await self.page()).name, "")
            await self.end()
            await self.do(self.log.keep())
            page = await self.page()
            self.assertNotIn(page.name, ("", name))
            self.assertEqual((page.first, page.last, list(page.endings)), (1, 0, []))
            self.assertFalse(page.follows(name, 0))
            id = await self.end()
            self.assertEqual([each.correlation_id for each in (await self.page()).endings], [id])

        async def test_bounded(self) -> None:
            """Of more endings than the log may have, the newest are kept, and a reader can tell."""
            self.log._most = 3
            self.assertLess(TTL, KEPT_SECONDS)
            await self.do(self.log.keep())
            for _ in range(250 if self.bounds_roughly else 5):
                await self.end()
            await self.bench.pass_time(3)
            page = await self.page(most=1000)
            self.assertLessEqual(len(page.endings), 200 if self.bounds_roughly else 3)
            self.assertEqual(page.endings[-1].number, page.last)
            self.assertEqual(page.endings[0].number, page.first)
            self.assertGreater(page.first, 1)
            self.assertFalse(page.follows(page.name, 0))

        bounds_roughly = False

    return EndingLogContract
