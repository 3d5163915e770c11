# -*- test-case-name: tests.kafka.test_topics -*-
"""Asking a cluster about topics, and making them: the admin client, whose answers come from a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail

from openhqm.errors import NotDurable
from openhqm.kafka.errors import MISSING, STOPPED, describe, name_of
from openhqm.runtime.deferreds import deferred

ANSWER_SECONDS = 5.0
SHORT_RETENTION_HOURS = 24.0
NO_TOPIC = "openhqm-probe"
"""No topic has this name. Asking for one topic asks for little, whether there is such a topic or not."""


@attrs.frozen
class Topic:
    """One topic that exists. ``replicas``: how many brokers have its partition with the fewest.

    ``id`` is another one when the topic was deleted and made again; None: the cluster does not say.
    """

    name: str
    partitions: tuple[int, ...]
    replicas: int
    brokers: int
    id: str | None = None


class Topics:
    """``properties`` say how to reach the cluster."""

    def __init__(self, properties: Mapping[str, Any], reactor: Any) -> None:
        self._properties = dict(properties)
        self._reactor = reactor
        self._admin: Any = None
        self._waiting: set[Deferred[Any]] = set()
        self._stopped = False
        self.brokers = 1
        """How many the cluster has, as far as we were told."""

    def start(self) -> None:
        """Make the client. It begins to connect by itself."""
        from confluent_kafka.admin import AdminClient

        self._admin = AdminClient(self._properties)

    def stop(self) -> None:
        """Those who wait for an answer, or ask from now on, are told that none comes."""
        self._stopped = True
        for answer in list(self._waiting):
            answer.errback(NotDurable(STOPPED))

    @deferred
    async def probe(self) -> None:
        """Find out whether the cluster answers. `NotDurable`.

        It is asked about a topic, and not about itself: where all its brokers are fenced, as an overloaded one is, it
        tells of no broker and no topic, for which librdkafka ends the process by an assertion of its own (2.16.0,
        ``rd_kafka_admin_response_parse``).
        """
        try:
            await self.find(NO_TOPIC)
        except KafkaFailure as failure:
            if failure.code != "TOPIC_AUTHORIZATION_FAILED":
                raise

    @deferred
    async def find(self, name: str) -> Topic | None:
        """The topic, or None where there is none. `NotDurable`."""
        from confluent_kafka import TopicCollection

        def describe_topic(admin: Any) -> Any:
            return admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_SECONDS)[name]

        try:
            found = await self._ask(describe_topic)
        except KafkaFailure as failure:
            if failure.code in MISSING or failure.code == "INVALID_TOPIC_EXCEPTION":
                return None
            raise
        replicas = min((len(each.replicas) for each in found.partitions), default=0)
        return Topic(name, tuple(each.id for each in found.partitions), replicas, self.brokers, _id_of(found))

    @deferred
    async def made_again(self, ids: Mapping[str, str]) -> list[str]:
        """Which of these topics, by name, have another id now. Of one that is missing, or not told of, nothing is said.

        `NotDurable`.
        """
        from confluent_kafka import TopicCollection

        try:
            asked = self._admin.describe_topics(TopicCollection(list(ids)), request_timeout=ANSWER_SECONDS)
        except Exception as error:
            raise KafkaFailure(error) from None
        answers = [self._answer(each) for each in asked.values()]
        waiting = DeferredList(answers, consumeErrors=True).addTimeout(2 * ANSWER_SECONDS, self._reactor, _too_late)
        found = zip(asked, await waiting, strict=True)
        return [name for name, (was_told, topic) in found if was_told and _id_of(topic) != ids[name]]

    @deferred
    async def make(self, name: str, partitions: int, replication: int) -> None:
        """Make the topic, unless it is there. `NotDurable`."""
        from confluent_kafka.admin import NewTopic

        new = NewTopic(name, partitions, replication)
        try:
            await self._ask(lambda admin: admin.create_topics([new], operation_timeout=ANSWER_SECONDS)[name])
        except KafkaFailure as failure:
            if failure.code != "TOPIC_ALREADY_EXISTS":
                raise

    @deferred
    async def faults(self, topic: Topic) -> tuple[str | None, list[str]]:
        """Why nothing may be published into the topic (or None), and what an operator should know of it."""
        from confluent_kafka.admin import ConfigResource

        resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name)
        try:
            entries = await self._ask(
                lambda admin: admin.describe_configs([resource], request_timeout=ANSWER_SECONDS)[resource]
            )
        except KafkaFailure:  # an ACL may forbid that
            return None, []
        return look_at(topic, {name: entry.value for name, entry in entries.items()})

    def _ask(self, ask: Callable[[Any], Any]) -> Deferred[Any]:
        """``ask`` returns a future, which is answered in a thread. `KafkaFailure`, for whatever went wrong."""
        try:
            answer = self._answer(ask(self._admin))
        except Exception as error:
            return fail(KafkaFailure(error))
        return answer.addTimeout(2 * ANSWER_SECONDS, self._reactor, _too_late)

    def _answer(self, future: Any) -> Deferred[Any]:
        if self._stopped:
            return fail(NotDurable(STOPPED))
        answer: Deferred[Any] = Deferred()
        self._waiting.add(answer)

        def forget(result: Any) -> Any:
            self._waiting.discard(answer)
            return result

        def answered() -> None:
            if answer.called:
                return
            try:
                result = future.result()
            except Exception as error:
                answer.errback(KafkaFailure(error))
            else:
                answer.callback(result)

        future.add_done_callback(lambda _: self._reactor.callFromThread(answered))
        return answer.addBoth(forget)


class KafkaFailure(NotDurable):
    """The cluster refused what it was asked, or did not answer. ``code`` is the name of librdkafka's code, or ""."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"Kafka: {describe(error)}")
        self.code = name_of(error)


def look_at(topic: Topic, values: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """What the settings of a topic mean for requests in it; see `Topics.faults`."""
    if "compact" in values.get("cleanup.policy", ""):
        return (
            f"the topic {topic.name} has cleanup.policy {values['cleanup.policy']}, so Kafka removes messages that "
            "nothing has read: set it to delete"
        ), []
    warnings = []
    hours = int(values.get("retention.ms") or -1) / 3_600_000
    if 0 <= hours < SHORT_RETENTION_HOURS:
        warnings.append(
            f"Kafka drops messages of {topic.name} after {hours:g} hours, also those that no worker has read: "
            "raise retention.ms"
        )
    if topic.replicas == 1 and topic.brokers > 1:
        warnings.append(f"{topic.name} has one replica: requests in it are lost with one disk")
    elif topic.replicas > 1 and int(values.get("min.insync.replicas") or 1) < 2:
        warnings.append(f"{topic.name} has min.insync.replicas 1: what Kafka confirms may be on one disk alone")
    return None, warnings


def _id_of(found: Any) -> str | None:
    """A cluster that knows no ids of topics says that all bits of it are zero."""
    id = str(found.topic_id)
    return None if id.strip("A") == "" else id


def _too_late(result: Any, seconds: float) -> Any:
    raise NotDurable(f"Kafka does not answer within {seconds:g} s")
