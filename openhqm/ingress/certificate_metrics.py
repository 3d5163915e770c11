# -*- test-case-name: tests.ingress.test_certificate_metrics -*-
"""How long the certificates are valid that this process shows to clients, endpoints and brokers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from openhqm.config.model import Settings

NAME = "openhqm_certificate_expiry_seconds"
LIST_NAME = "openhqm_client_crl_expiry_seconds"
LIST_HELP = "Seconds until a list of revoked client certificates in this file is not good any more."
HELP = "Seconds until the certificate in this file is not valid any more."


def certificate_files(record: Any) -> Iterator[str]:
    """The files that a setting called ``cert`` names, anywhere below ``record``."""
    if attrs.has(type(record)):
        for field in attrs.fields(type(record)):
            value = getattr(record, field.name)
            if field.name == "cert" and isinstance(value, str):
                yield value
            else:
                yield from certificate_files(value)
    elif isinstance(record, dict):
        for value in record.values():
            yield from certificate_files(value)
    elif isinstance(record, list | tuple):
        for value in record:
            yield from certificate_files(value)


class CertificateMetrics:
    """A collector of prometheus-client. It reads the files at each scrape, because others renew them.

    Without the package cryptography (the extra ``tls``), and for a file that cannot be read, there is no sample.
    """

    def __init__(
        self, settings: Callable[[], Settings], registry: CollectorRegistry, now: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._now = now
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics, with a sample for each file."""
        family = GaugeMetricFamily(NAME, HELP, labels=["file"])
        for path in sorted(set(certificate_files(self._settings()))):
            end = _valid_until(path)
            if end is not None:
                family.add_metric([path], end - self._now())
        lists = GaugeMetricFamily(LIST_NAME, LIST_HELP, labels=["file"])
        crl = self._settings().server.tls.client_crl
        end = None if crl is None else _list_until(crl)
        if crl is not None and end is not None:
            lists.add_metric([crl], end - self._now())
        return [family, lists]


def _list_until(path: str) -> float | None:
    """Until when the first of the lists in the file is good that ends."""
    try:
        from openhqm.runtime.revocation import read_lists

        ends = [each.next_update_utc for each in read_lists(path)]
        return min(end.timestamp() for end in ends if end is not None)
    except (ImportError, ValueError):
        return None


def _valid_until(path: str) -> float | None:
    try:
        from cryptography.x509 import load_pem_x509_certificate

        return load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc.timestamp()
    except (ImportError, OSError, ValueError):
        return None
