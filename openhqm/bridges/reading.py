# -*- test-case-name: tests.bridges.test_reading -*-
"""A foreign message as a request: what it asks for, where it goes, how it is recognised, and where its reply goes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import blake2b
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from msgspec.structs import replace

from openhqm.bridges.formats import Formats
from openhqm.bridges.held_claims import HELD_SECONDS
from openhqm.config.bridges import NONE, STRICT, Bridge, replies_of
from openhqm.config.inbox import Inbox
from openhqm.errors import InvalidRequest, UnreadableMessage
from openhqm.interfaces import Message, Properties
from openhqm.messages import DeadLetter, IdempotencyClaim, Priority, Reply, Request, Status, Submission
from openhqm.policy.addressing import Addressing, scoped
from openhqm.policy.children import DIVIDING
from openhqm.policy.fields import Document
from openhqm.policy.foreign import MESSAGE_ID
from openhqm.policy.queue_names import BACKLOG
from openhqm.policy.reason_classes import ReasonClass
from openhqm.policy.text_templates import LEVELS, TOPIC, TextTemplate, one_level

SEEN_BRIEFLY_SECONDS = 60.0
"""How long it is known that a message was accepted where its identity is given to another one after a while.

MQTT uses its packet identifiers again.
"""
LONGEST_TOPIC = 1024
MOST_LEVELS = 100
LONGEST_IDENTITY = 255
REFUSED_STATUS = 422
KEY = "key"
"""The metadata of a message that its producer has given one. Where no other is named, it is the partition key."""
REPLY = "reply_to"
"""The metadata of a reply that waits to be published: where to, and with which correlation."""


class Reading(msgspec.Struct, frozen=True):
    """A message that was read. ``claim`` recognises it when it is delivered again; None: nothing does.

    ``certain``: the claim is for the message's own id, so a message with the same one is the same message.
    """

    submission: Submission
    claim: IdempotencyClaim | None
    certain: bool
    follow_ups: tuple[Submission, ...]


def size_of(message: Message) -> int:
    """How many bytes a request is made of at most. Its topic is in it several times."""
    about = message.properties or Properties()
    fields = sum(len(name) + len(value) for name, value in message.headers.items())
    return len(message.body) + fields + len(message.key or "") + 4 * (len(about.topic) + LONGEST_IDENTITY)


def never_away(endpoint: str | None) -> bool:
    """No endpoint is away."""
    return False


class Reader:
    """Reads the messages of one bridge. ``addressing`` can be exchanged.

    ``reply_fault`` says what keeps a channel, which a message names, from getting a reply; None: nothing. Messages of
    more than ``most_bytes`` are refused. ``is_away`` says of an endpoint, as submissions name it, whether it is away
    now: what comes for it then waits apart, where the bridge has a rate for its backlog.
    """

    def __init__(
        self,
        bridge: Bridge,
        addressing: Addressing,
        formats: Formats,
        reply_fault: Callable[[str], str | None],
        most_bytes: int,
        is_away: Callable[[str | None], bool] = never_away,
    ) -> None:
        self.addressing = addressing
        self._bridge = bridge
        self._formats = formats
        self._format = bridge.from_.format
        self._reply_fault = reply_fault
        self._most_bytes = most_bytes
        self._is_away = is_away
        self._partition_key = _compiled(bridge.partition_key)
        self._path = _compiled(bridge.path)
        self._reply_broker = None if bridge.reply == NONE else bridge.reply_broker
        reply = bridge.reply_channel
        self._reply_topic = _compiled(None if reply is None else reply.topic)
        self._scope = f"bridge {bridge.name}"
        named = {
            "partition_key": self._scope if bridge.order == STRICT else None,
            "endpoint": bridge.endpoint,
            "operation": bridge.operation,
        }
        self._named = {name: value for name, value in named.items() if value is not None}
        # Each result would wait on the disk for its expiry, where nothing asks for it.
        self._fixed: dict[str, Any] = {"tenant": bridge.tenant, "timeout": bridge.timeout, "keeps_result": False}
        self._fixed = {name: value for name, value in self._fixed.items() if value is not None}
        if bridge.priority is not None:
            self._fixed["priority"] = Priority(bridge.priority)
        self._inbox = bridge if isinstance(bridge, Inbox) and bridge.queue_replies else None

    def read(self, message: Message, now: float) -> Reading:
        """`UnreadableMessage`, `MalformedJSON`, `InvalidRequest` or `TransformFailed` where it can be no request."""
        about = message.properties or Properties()
        if about.fault is not None:
            raise UnreadableMessage(about.fault)
        if len(message.body) > self._most_bytes:
            raise UnreadableMessage(f"it has more than {self._most_bytes} bytes")
        if len(about.topic) > LONGEST_TOPIC or about.topic.count("/") >= MOST_LEVELS:
            raise UnreadableMessage(f"its topic has more than {LONGEST_TOPIC} characters or {MOST_LEVELS} levels")
        content = self._formats.content(message, self._format, now)
        if content.reply_to is not None and about.reply_to is None:
            about = replace(about, reply_to=content.reply_to)
        submission = self._with_metadata(content.submission, message.key, about, now)
        follow_up = self._follow_up(submission, message.key, about)
        if self._inbox is not None and (reply_to := about.reply_to or self._inbox.answers) is not None:
            self._check_reply_to(reply_to)
            submission = replace(submission, reply_to=reply_to)
        if not submission.metadata.keys().isdisjoint(DIVIDING):
            raise InvalidRequest("metadata", "a message cannot consist of steps: submit it over HTTP")
        follow_ups = (*self.addressing.follow_ups(submission), *(() if follow_up is None else (follow_up,)))
        submission = self._placed(self.addressing.addressed(submission))
        if submission.coalescing is not None:
            submission = scoped(submission)
        if follow_ups or submission.reply_to is not None:
            submission = replace(submission, keeps_result=True)
        own = content.identity or about.message_id or None  # an empty one says nothing
        return Reading(submission, self._claim(message, about, own), own is not None, follow_ups)

    def _claim(self, message: Message, about: Properties, own: str | None) -> IdempotencyClaim | None:
        if own is not None:
            return IdempotencyClaim(_short(own), _digest(message, about), HELD_SECONDS, self._scope)
        if about.identity is None:
            return None
        digest = _digest(message, about)  # another message may have the same identity
        return IdempotencyClaim(f"{about.identity}-{digest.hex()}", digest, SEEN_BRIEFLY_SECONDS, self._scope)

    def _placed(self, submission: Submission) -> Submission:
        """The submission in the queue of the backlog, where it belongs there."""
        if self._bridge.order == NONE and submission.partition is not None:
            submission = replace(submission, partition=None)
        apart = self._bridge.replay.rate is not None and submission.partition is None
        if apart and self._is_away(submission.endpoint):
            return replace(submission, partition=BACKLOG, share=None)
        return submission

    def letter(
        self, message: Message, reason: str, now: float, kind: ReasonClass = ReasonClass.NOT_A_REQUEST
    ) -> DeadLetter:
        """The dead letter for a message that can be no request: with its bytes, its topic and what it had besides.

        It can be stored, whatever the message holds: of one that is too large, its beginning.
        """
        about = message.properties or Properties()
        metadata = {**self._about(about), TOPIC: _storable(about.topic[:LONGEST_TOPIC])}
        if message.key is not None:
            metadata[KEY] = _storable(message.key)
        if message.headers:
            metadata["fields"] = {_storable(name): _storable(value) for name, value in message.headers.items()}
        reason = _storable(reason)
        id = str(UUID(bytes=_digest(message, about), version=4))
        body, size = message.body, len(message.body)
        if size > self._most_bytes:
            body, reason = body[: self._most_bytes], f"{reason}; of its {size} bytes these are the first ones"
        reply_to = None
        if self._inbox is not None:
            asked = about.reply_to
            reply_to = asked if asked is not None and self._reply_fault(asked) is None else self._inbox.answers
        request = Request(id, now, Submission(b"null", metadata=metadata, body=body, reply_to=reply_to))
        reply = Reply(id, Status.FAILED, now, status_code=REFUSED_STATUS, error=reason, reason_class=kind.value)
        return DeadLetter(request, f"not a request: {reason}", reply, now)

    def _about(self, about: Properties) -> dict[str, Any]:
        found: dict[str, Any] = {"bridge": self._bridge.name, TOPIC: about.topic[:LONGEST_TOPIC]}
        if self._inbox is not None and about.message_id is not None:
            found[MESSAGE_ID] = about.message_id
        if about.retained:
            found["retained"] = True
        if about.duplicate:
            found["duplicate"] = True
        if about.tombstone:
            found["tombstone"] = True
        if about.position is not None:
            found["position"] = about.position
        return found

    def _with_metadata(self, found: Submission, key: str | None, about: Properties, now: float) -> Submission:
        metadata = {**found.metadata, **self._about(about), LEVELS: about.topic.split("/")}
        if key is not None:
            metadata[KEY] = key
            metadata.setdefault("partition_key", key)
        metadata.update(self._named)
        if self._partition_key is not None or self._path is not None:
            submission = replace(found, metadata=metadata)
            document = Document(submission)
            if self._partition_key is not None:
                metadata["partition_key"] = self._partition_key.fill(document)
            if self._path is not None:
                metadata["path"] = self._path.fill(document, lambda text: quote(text, safe=""))
                self._formats.check(submission, now)
        return replace(found, metadata=metadata, **self._fixed)

    def _follow_up(self, submission: Submission, key: str | None, about: Properties) -> Submission | None:
        broker = self._reply_broker
        if broker is None:
            return None
        if self._reply_topic is not None:
            channel = self._reply_topic.fill(Document(submission), one_level)
        elif about.reply_to is not None:
            channel = about.reply_to
        else:
            return None
        self._check_reply_to(channel)
        address: dict[str, Any] = {"broker": broker, "channel": channel}
        if about.correlation is not None:
            address["correlation"] = b64encode(about.correlation).decode()
        if key is not None:
            address[KEY] = key
        original = submission.metadata.get("correlation_id") or about.message_id
        if isinstance(original, str):
            address["in_reply_to"] = original
        return Submission(b"null", metadata={REPLY: address}, endpoint=replies_of(broker))

    def _check_reply_to(self, channel: str) -> None:
        fault = self._reply_fault(channel)
        if fault is not None:
            raise UnreadableMessage(f"its reply cannot go to {channel[:80]!r}, which {fault}")


def _digest(message: Message, about: Properties) -> bytes:
    digest = blake2b(message.body, digest_size=16)
    digest.update(about.topic.encode("utf-8", "surrogatepass"))
    return digest.digest()


def _compiled(text: str | None) -> TextTemplate | None:
    return None if text is None else TextTemplate(text)


def _storable(text: str) -> str:
    """The text, where UTF-8 has it; what UTF-8 does not have is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _short(identity: str) -> str:
    """An identity of any length as a key of at most `LONGEST_IDENTITY` characters."""
    if len(identity) <= LONGEST_IDENTITY and identity.isprintable():
        return identity
    return blake2b(identity.encode("utf-8", "surrogatepass")).hexdigest()
