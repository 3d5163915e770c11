# -*- test-case-name: openhqm.testing -*-
"""The seams: a queue with its results, a broker that moves messages, and a broker of other programs.

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
    Properties,
)
from openhqm.interfaces.endings import IEndingLog
from openhqm.interfaces.foreign import IForeignBroker
from openhqm.interfaces.queue import DEAD_LETTER_PAGE_BYTES, IDelivery, IMessageQueue, IResultStore, QueueTraits
from openhqm.interfaces.shares import IShares

__all__ = [
    "DEAD_LETTER_PAGE_BYTES",
    "Acks",
    "BrokerTraits",
    "ChannelMissing",
    "DepthKind",
    "IBroker",
    "IBrokerDelivery",
    "IDelivery",
    "IEndingLog",
    "IForeignBroker",
    "IMessageQueue",
    "IReceiver",
    "IResultStore",
    "IShares",
    "ISubscription",
    "Message",
    "Position",
    "Properties",
    "QueueTraits",
]
