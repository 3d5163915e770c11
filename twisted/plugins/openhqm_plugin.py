"""Tells twistd about ``openhqm``. The service itself is imported only when it is asked for."""

from twisted.application.service import ServiceMaker

openhqm = ServiceMaker(
    "OpenHQM", "openhqm.plugin", "A durable queue between HTTP callers and what answers them.", "openhqm"
)
