# -*- test-case-name: openhqm.testing -*-
"""The two seams: a queue with its results, and a broker that moves messages.

A backend fills either one. `openhqm.testing` holds the contract of each; an author runs the same suites as we do.
"""

from openhqm.interfaces.broker import (
    Acks,
    BrokerTraits,
    ChannelMissing,
    DepthKind,
    IBroker,
    IBrokerDelivery,
    IReceiver,
    ISubscription,
    Message,
    Position,
)
from openhqm.interfaces.queue import IDelivery, IMessageQueue, IResultStore, QueueTraits

__all__ = [
    "Acks",
    "BrokerTraits",
    "ChannelMissing",
    "DepthKind",
    "IBroker",
    "IBrokerDelivery",
    "IDelivery",
    "IMessageQueue",
    "IReceiver",
    "IResultStore",
    "ISubscription",
    "Message",
    "Position",
    "QueueTraits",
]
