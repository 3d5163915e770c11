# -*- test-case-name: tests.policy.test_callbacks -*-
"""Callbacks: what a request that names a URL, or a channel of a broker, leaves to be done once it has ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs

from openhqm.errors import DestinationRefused, InvalidRequest
from openhqm.messages import Submission

CALLBACKS = "callbacks"
"""The endpoint that they wait for, in a queue of their own. No submission can name it."""
CALLBACK_URL = "callback_url"
"""The metadata with the URL: of the request, and of its callback."""
REPLY_TO = "reply_to"
"""The metadata with the broker and the topic that the response document goes to."""
DOCUMENT = "document"
"""Where this is true in the address of a reply, the reply is published as its response document."""
_FIELD = f"metadata.{CALLBACK_URL}"
_REPLY_FIELD = f"metadata.{REPLY_TO}"
_FREE = re.compile(r"[A-Za-z0-9._/-]{1,200}")


@attrs.frozen
class Channel:
    """The queue in which replies to a broker wait, and the ``topics`` of that broker that requests may name.

    One that ends in ``*`` stands for all that go on with letters, digits, dots, slashes, hyphens and underscores.
    """

    queue: str
    topics: Sequence[str]

    def covers(self, topic: str) -> bool:
        """Whether a request may name ``topic``."""
        for each in self.topics:
            if topic == each and not each.endswith("*"):
                return True
            if each.endswith("*") and topic.startswith(each[:-1]) and _FREE.fullmatch(topic[len(each) - 1 :]):
                return True
        return False


@attrs.frozen
class Callbacks:
    """``check`` raises `DestinationRefused` for a URL that must not be called; None: none may be.

    ``channels`` has the brokers that a reply may go to, by name. ``shares``: see `Addressing`.
    """

    check: Callable[[str], object] | None
    channels: Mapping[str, Channel] = attrs.field(factory=dict)
    shares: Collection[str] = ()

    def of(self, submission: Submission) -> tuple[Submission, ...]:
        """What ``submission`` asks for, as its follow-ups. `InvalidRequest` where one of them cannot be made."""
        metadata = submission.metadata
        if CALLBACK_URL not in metadata and REPLY_TO not in metadata:
            return ()
        found: list[tuple[str, dict[str, Any]]] = []
        if CALLBACK_URL in metadata:
            found.append((CALLBACKS, {CALLBACK_URL: self._url(metadata[CALLBACK_URL])}))
        if REPLY_TO in metadata:
            channel, address = self._address(metadata[REPLY_TO])
            found.append((channel.queue, {REPLY_TO: address}))
        tenant = submission.tenant
        share = tenant if tenant in self.shares else None
        return tuple(
            Submission(b"null", metadata=about, endpoint=endpoint, tenant=tenant, keeps_result=False, share=share)
            for endpoint, about in found
        )

    def _url(self, url: Any) -> str:
        if self.check is None:
            raise InvalidRequest(_FIELD, "cannot be called: this gateway has no callbacks.secrets to sign with")
        try:
            self.check(str(url))
        except DestinationRefused as error:
            raise InvalidRequest(_FIELD, str(error)) from None
        return str(url)

    def _address(self, value: Any) -> tuple[Channel, dict[str, Any]]:
        if not isinstance(value, Mapping) or set(value) != {"broker", "topic"}:
            raise InvalidRequest(_REPLY_FIELD, "must be an object with broker and topic")
        broker, topic = value["broker"], value["topic"]
        channel = self.channels.get(broker) if isinstance(broker, str) else None
        if channel is None or not isinstance(topic, str) or not channel.covers(topic):
            raise InvalidRequest(_REPLY_FIELD, "is not one of the channels in callbacks.channels")
        return channel, {"broker": broker, "channel": topic, DOCUMENT: True}


refuse = Callbacks(None).of
"""For where none are sent."""
