# -*- test-case-name: tests.pubsub.test_foreign -*-
"""The names of topics and subscriptions: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names."""

from __future__ import annotations

import re

NAME = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}\Z")
PROJECT = re.compile(r"(?:[a-z0-9.-]{1,63}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]\Z")
NAME_RULE = "must have 3 to 255 letters, digits and . _ ~ + % -, begin with a letter, and not with goog"
_PATH = re.compile(r"projects/([^/]+)/(topics|subscriptions)/([^/]+)\Z")


def topic_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a topic, or None. It may be a path, with a project."""
    return _fault(name, "topics")


def subscription_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a subscription, or None. It may be a path, with a project."""
    return _fault(name, "subscriptions")


def _fault(name: str, kind: str) -> str | None:
    if "/" not in name:
        return None if NAME.match(name) else f"is no name in Pub/Sub, which {NAME_RULE}"
    path = _PATH.match(name)
    if path is None or path[2] != kind or not PROJECT.match(path[1]) or not NAME.match(path[3]):
        return f"is no path in Pub/Sub: projects/PROJECT/{kind}/NAME, whose name {NAME_RULE}"
    return None


def topic_path(project: str, name: str) -> str:
    """The path of a topic. A name that is a path stays as it is."""
    return name if "/" in name else f"projects/{project}/topics/{name}"


def subscription_path(project: str, name: str) -> str:
    """The path of a subscription. A name that is a path stays as it is."""
    return name if "/" in name else f"projects/{project}/subscriptions/{name}"
