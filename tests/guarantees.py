"""The tables of docs/QUEUE_BACKENDS.md that say what is guaranteed: made by asking the code, each cell with its test.

``python -m tests.guarantees`` writes them into the page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import attrs
from twisted.internet.task import Clock

from openhqm.backends import PRODUCTS, TABLE, Row, make_backend
from openhqm.config.loading import load
from openhqm.config.products import Kind, Reach
from openhqm.interfaces import Acks, QueueTraits
from openhqm.policy.guarantees import AT_LEAST_ONCE, ORDERED, ORDERED_PER_KEY, Answer, of_bridge, of_queue
from openhqm.queue.backend import Backend
from tests.servers import ROOT

PAGE = ROOT / "docs" / "QUEUE_BACKENDS.md"
BEGIN, END = "<!-- guarantees -->", "<!-- end of the guarantees -->"
CRASHED = "openhqm/testing/crashing.py:Crashing.test_crash_delivered"
OLDEST = "openhqm/testing/receiving.py:Receiving.test_oldest_first"
PARTITION = "openhqm/testing/receiving.py:Receiving.test_in_order"
PRIORITIES = "openhqm/testing/receiving.py:Receiving.test_saturated"
SHARED = "openhqm/testing/sharing.py:Sharing.test_one_behind_many"
AGAIN = "openhqm/testing/settling.py:Settling.test_lost_lease"
SIZE = "tests/ingress/test_message_size.py:DoorTests.test_submit"
FORMS = "tests/brokered/test_forms.py"
BRIDGED = "tests/bridges/test_bridge.py:BridgeTests.test_acknowledged_when_accepted"
BRIDGED_AT_THE_END = "tests/bridges/test_bridge.py:BridgeTests.test_acknowledged_at_the_ending"
BRIDGED_AGAIN = "tests/bridges/test_bridge.py:BridgeTests.test_delivered_again"
BRIDGED_IN_ORDER = "tests/bridges/test_bridge.py:BridgeTests.test_order_of_a_partition"
NO_SIZE = "tests/bridges/test_bridge.py:BridgeTests.test_never_fits"
PUBLISHED = "tests/workers/test_publishing.py:PublishingTests.test_published"
NOT_TAKEN = "tests/workers/test_publishing.py:PublishingTests.test_not_taken"
HANDLED = "tests/test_crash.py:KillTests.test_nothing_is_lost"
SENT = "tests/workers/test_egress.py:OutcomeTests.test_retried"
FORWARDED = "tests/ingress/test_proxied.py"
QUEUE_COLUMNS = (
    "queue",
    "results",
    "at least once",
    "oldest first",
    "order in a partition",
    "high first, low one in ten",
    "fair among tenants",
    "worked on again",
    "largest message",
    "contract",
)
EXAMPLES = {
    "azure_eventhubs": {
        "connection_string": "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0"
    },
}
"""What a product needs that has no default, to be made without a connection."""
CHECKED = ", where Redis syncs its file: looked at when it is reached"
RECOGNISED = {
    Acks.EACH: "its broker delivers a message again that was accepted, and it has no id of its own",
    Acks.PREFIX: "never for this reason: a message is recognised by its place in the channel",
    Acks.IN_ORDER: "its broker delivers a message again, and says so no more because the session has ended",
}
"""When a bridge makes two requests of one message."""


def cell(text: str, test: str) -> str:
    """A text that links to its test: the path of a module, and after a colon the dotted name in it."""
    path, _, name = test.partition(":")
    return f'[{text}](../{path} "{name}")' if name else f"[{text}](../{path})"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def folder(row: Row) -> str:
    """The folder of a product, in the package and in the tests."""
    return row.name if row.settings is None else row.settings.__module__.split(".")[1]


def suite(row: Row, keeper: Row | None) -> str:
    """The class that runs the contract of a backend on this product, with the records in ``keeper`` beside it."""
    bench = f"{row.name}_bench" if keeper is None else f"{keeper.name}_and_"
    own = f"tests/{folder(row)}"
    for path in (f"{own}/test_backend.py", f"{own}/test_redis_backend.py", f"{own}/test_contract.py", CONTRACTS):
        if (ROOT / path).exists():
            text = (ROOT / path).read_text(encoding="utf-8")
            if found := re.search(rf"^class (\w+)\(backend_contract\([^)]*\b{bench}", text, re.MULTILINE):
                return f"{path}:{found[1]}"
    return FORMS


CONTRACTS = "tests/queue/test_contracts.py"
ON_A_PRODUCT = re.compile(r"^class ((?:Bridge|Foreign|Stream)Tests|\w*Contract)\(", re.MULTILINE)


def on_the_product(row: Row) -> str:
    """The class that runs a bridge, or the contract of its adapter, on a server of this product."""
    own = f"tests/{folder(row)}"
    for path in (f"{own}/test_foreign.py", f"{own}/test_contract.py"):
        if (ROOT / path).exists() and (found := ON_A_PRODUCT.search((ROOT / path).read_text(encoding="utf-8"))):
            return f"{path}:{found[1]}"
    raise AssertionError(f"nothing shows {row.name} on a server")


@cache
def settings() -> Any:
    """Those without a configuration."""
    return load(None, {}, PRODUCTS)


def record(row: Row) -> Any:
    """The record of a product, with its defaults and what its example says."""
    assert row.settings is not None
    return row.settings(**EXAMPLES.get(row.name, {}))


def traits(row: Row, keeper: Row | None) -> tuple[QueueTraits, bool]:
    """What the queue says of itself that is made with the product's defaults, and whether that depends on the settings
    of a server, which are read when it is reached. Here nothing is connected.
    """
    queue = attrs.evolve(settings().queue, type=row.name)
    if row.settings is not None:
        connection = attrs.evolve(queue.connection, **{row.name: record(row)})
        queue = attrs.evolve(queue, connection=connection)
    beside = attrs.evolve(settings().cache, type=None if keeper is None else keeper.name)
    commit: Any = None
    made: Backend = make_backend(attrs.evolve(settings(), queue=queue, cache=beside), Clock(), commit)  # type: ignore[arg-type]
    durable = row.reach is not Reach.PROCESS
    return attrs.evolve(made.queue.traits, durable=durable), durable and not made.queue.traits.durable


def queues() -> Iterator[tuple[Row, Row | None]]:
    """Every product that a queue can be in, with every product that keeps the records beside it."""
    for row in TABLE:
        if row.kind is Kind.BACKEND:
            yield row, None
        elif row.kind is Kind.BROKER:
            for keeper in TABLE:
                if keeper.keeps_records:
                    yield row, keeper


def said(answer: Answer) -> str:
    """An answer in a cell."""
    return "yes" if answer.kept else f"no: {answer.why}"


def of_queues() -> Iterator[str]:
    """The table of queues and ledgers."""
    yield line(*QUEUE_COLUMNS)
    yield line(*["---"] * len(QUEUE_COLUMNS))
    for row, keeper in queues():
        found, depends = traits(row, keeper)
        answers = of_queue(row.name, found, partitioned=True)
        contract = suite(row, keeper)
        again = "a worker ends in an attempt, or loses its lease"
        reach = "of all that waits" if row.kind is Kind.BACKEND else "of what is prefetched"
        if row.priorities is not None:
            reach += ", where `queue.priorities` names them: by default none has a channel of its own"
        largest = "no limit" if found.largest_message is None else f"{found.largest_message:,} bytes"
        yield line(
            f"`{row.name}`",
            "with it" if keeper is None else f"`{keeper.name}`",
            cell(said(answers[AT_LEAST_ONCE]) + (CHECKED if depends else ""), CRASHED if found.durable else contract),
            cell(said(answers[ORDERED]), OLDEST if found.ordered else PARTITION),
            cell(said(answers[ORDERED_PER_KEY]), PARTITION),
            cell(reach, PRIORITIES),
            cell("of all that waits" if found.tells_shares else "of what is prefetched", SHARED),
            cell(again if found.durable else "never: it is lost", AGAIN),
            cell(largest, SIZE),
            cell("its traits" if contract == FORMS else "run", contract),
        )


def of_sources() -> Iterator[str]:
    """The table of what requests come from."""
    queue = of_queue("sqlite", traits(TABLE[0], None)[0], partitioned=True)
    again = "two requests of one message when"
    yield line("source", "at least once", "order within a key", again, "largest message", "on a server")
    yield line(*["---"] * 6)
    yield line(
        "HTTP",
        cell("from the 202 on", HANDLED),
        cell("yes, with a partition key", PARTITION),
        cell("the caller repeats it without `Idempotency-Key`", "openhqm/testing/idempotency.py"),
        cell("`server.max_body_bytes`, and that of the queue", SIZE),
        cell("run", HANDLED),
    )
    for row in TABLE:
        if row.foreign is None or row.make_foreign is None or row.name == "custom":
            continue
        acks = row.make_foreign(record(row), Clock()).acks
        answers = of_bridge(row.name, queue, ending=False, in_order=row.foreign.in_order, keyed=True)
        yield line(
            f"bridge from `{row.name}`",
            cell("acknowledged when it is accepted", BRIDGED)
            + ("" if row.foreign.one_reader else ", or " + cell("when it has ended", BRIDGED_AT_THE_END)),
            cell(said(answers[ORDERED_PER_KEY]), BRIDGED_IN_ORDER),
            cell(RECOGNISED[acks], BRIDGED_AGAIN),
            cell("that of the queue; a longer one is a dead letter", NO_SIZE),
            cell("run", on_the_product(row)),
        )


def of_sinks() -> Iterator[str]:
    """The table of where requests go."""
    yield line("sink", "at least once", "done twice when", "on a server")
    yield line("---", "---", "---", "---")
    again, run = cell("the process ends in an attempt", CRASHED), cell("run", HANDLED)
    yield line("a handler", cell("until it returns", HANDLED), again, run)
    answered = "until it answers, with `retry_on`"
    yield line("an HTTP endpoint", cell(answered, SENT), cell("its answer is lost", CRASHED), cell("run", FORWARDED))
    for row in TABLE:
        if row.make_foreign is not None and row.name != "custom":
            yield line(
                f"publishing to `{row.name}`",
                cell("until the broker confirms it", PUBLISHED),
                cell("its confirmation is lost", NOT_TAKEN),
                cell("run", on_the_product(row)),
            )


def tables() -> str:
    """All of them, as they are on the page."""
    parts = (
        ("### Queue and results", of_queues()),
        ("### Where requests come from", of_sources()),
        ("### Where they go", of_sinks()),
    )
    return "\n".join(f"{title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts)


def dangling(text: str) -> list[str]:
    """The links to tests that do not exist."""
    found = []
    for path, name in re.findall(r'\]\(\.\./([^)\s]+)(?: "([\w.]+)")?\)', text):
        if not (ROOT / path).exists():
            found.append(path)
        elif name and name not in _names(path):
            found.append(f"{path}: {name}")
    return found


@cache
def _names(path: str) -> set[str]:
    """The classes of a module, and their methods by dotted names; classes may be under a condition."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {node.name, *(f"{node.name}.{method}" for method in methods)}
    return found


if __name__ == "__main__":
    before, _, after = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables()}\n{END}{after.partition(END)[2]}", encoding="utf-8")
