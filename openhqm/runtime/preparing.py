# -*- test-case-name: tests.test_draining,tests.runtime.test_names -*-
"""What is changed in Twisted's reactor before it runs."""

from __future__ import annotations

from typing import Any

from openhqm.runtime.names import NameResolver
from openhqm.runtime.steady_time import keep_steady
from openhqm.runtime.threads import replace_pool


def prepare(reactor: Any) -> None:
    """Let ``reactor`` look names up in threads of their own, wait for no thread at its end, and keep steady time."""
    keep_steady(reactor)
    reactor.installNameResolver(NameResolver(reactor))
    replace_pool(reactor)
