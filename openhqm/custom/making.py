# -*- test-case-name: tests.test_backends -*-
"""``queue.type: custom``: the operator's own factory is called, and what it returns is told apart.

::

    queue:
      type: custom
      connection:
        custom:
          factory: my_package.my_module:make_queue
          options: {directory: /srv/queue}

The factory is called once, as ``factory(options, clock)``, before the reactor runs:

- ``options`` is ``queue.connection.custom.options``, a dictionary of its own, with the values as YAML or JSON has them.
  A value from a single environment variable is a string. Where nothing is configured, it is empty.
- ``clock`` is the reactor of the process, as an `IReactorTime`: the time, and calls later. What opens connections uses
  it as the reactor that it is.

It does no I/O. It returns one of two:

- an object that provides `openhqm.interfaces.IBroker`: it moves messages, and everything else is done over it, with the
  result store that ``cache.type`` names beside it. Its contract is ``broker_contract`` in `openhqm.testing`;
- a pair of an object that provides `openhqm.interfaces.IMessageQueue` and one that provides
  `openhqm.interfaces.IResultStore`: a whole backend. ``start`` of the queue opens both, and ``stop`` closes both. Its
  contract is ``backend_contract`` in `openhqm.testing`. The names of the queues are those in the configuration
  (``queue.request_queue``, ``queue.dead_letter_queue``); a backend that needs to know them has them in its options.

Whether several processes can share it, only its author knows: ``server.workers`` and ``--role`` are not refused for it.
"""

from __future__ import annotations

import copy
from typing import Any

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.config.queue_limits import QueueLimits
from openhqm.custom.settings import CustomSettings
from openhqm.errors import Complaint, ConfigurationError
from openhqm.interfaces import IBroker, IMessageQueue, IResultStore
from openhqm.queue.backend import Backend, MadeBroker, RunCommit
from openhqm.runtime.dotted import load_callable, one_line


def make(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend | MadeBroker:
    """Call the factory. `ConfigurationError` where it cannot be imported, raises, or returns anything else."""
    ours = settings.queue.of(CustomSettings)
    path = ours.factory or ""
    made = _call(ours, clock, "queue.connection.custom.factory")
    if IBroker.providedBy(made):
        return MadeBroker(made)
    if isinstance(made, tuple) and len(made) == 2:
        queue, results = made
        if IMessageQueue.providedBy(queue) and IResultStore.providedBy(results):
            if settings.queue.limits != QueueLimits():
                reason = f"{path} returned a whole backend, which keeps limits of its own: leave the section out"
                raise ConfigurationError([Complaint("queue.limits", reason)])
            return Backend(queue, results)
    raise _wrong(
        f"{path} returned {_shown(made)}: it must return an object that provides IBroker, "
        "or a pair of one that provides IMessageQueue and one that provides IResultStore"
    )


def make_broker(ours: CustomSettings, clock: IReactorTime) -> IBroker:
    """The broker of other programs that a factory makes. `ConfigurationError` where that fails, or it is none."""
    made = _call(ours, clock, "brokers")
    if not IBroker.providedBy(made):
        reason = f"{ours.factory} returned {_shown(made)}: it must return an object that provides IBroker"
        raise _wrong(reason, "brokers")
    broker: IBroker = made
    return broker


def _call(ours: CustomSettings, clock: IReactorTime, key: str) -> Any:
    """What the factory makes. `ConfigurationError` about ``key``."""
    path = ours.factory or ""
    try:
        factory = load_callable(path)
    except ValueError as error:
        raise _wrong(str(error), key) from error
    try:
        return factory(copy.deepcopy(ours.options), clock)
    except Exception as error:  # whatever the operator's factory raises
        raise _wrong(f"{path} failed: {one_line(error)}", key) from error


def _wrong(reason: str, key: str = "queue.connection.custom.factory") -> ConfigurationError:
    return ConfigurationError([Complaint(key, reason)])


def _shown(made: Any) -> str:
    """What it is, without its values: they may come from the options, which may hold a password."""
    if isinstance(made, tuple):
        return f"a tuple of {', '.join(type(each).__name__ for each in made) or 'nothing'}"
    return "None" if made is None else f"an object of type {type(made).__name__}"
