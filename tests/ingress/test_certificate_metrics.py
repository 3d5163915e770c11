"""Operators see when a certificate ends, also after it was renewed."""

from __future__ import annotations

import json
import time
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.ingress.certificate_metrics import NAME, CertificateMetrics
from tests.certificates import certify


class CertificateMetricsTests(SynchronousTestCase):
    """The certificates of an endpoint and of a broker"""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.cert, self.key = certify(self.directory)
        self.now = time.time()
        self.registry = CollectorRegistry()

    def observe(self, **sections: object) -> None:
        settings = load("cfg.yaml", {}, PRODUCTS, json.dumps(sections).encode())
        CertificateMetrics(lambda: settings, self.registry, lambda: self.now)

    def seconds(self, path: Path) -> float | None:
        return self.registry.get_sample_value(NAME, {"file": str(path)})

    def test_of_endpoint_and_broker(self) -> None:
        """Each file is told once, with the time that is left: an hour, and less than nothing when that has passed."""
        tls = {"cert": str(self.cert), "key": str(self.key)}
        self.observe(
            brokers={"plant": {"type": "mqtt", "tls": tls}},
            proxy={
                "enabled": True,
                "endpoints": {
                    "billing": {"url": "https://localhost:1/", "tls": tls},
                    "valve": {"publish": {"broker": "plant", "topic": "valve"}},
                },
            },
        )
        self.assertEqual(round((self.seconds(self.cert) or 0) / 60), 60)
        self.now += 7200
        self.assertEqual(round((self.seconds(self.cert) or 0) / 60), -60)

    def test_unreadable(self) -> None:
        """A file that is being replaced has no sample, and the scrape succeeds."""
        endpoint = {"url": "https://localhost:1/", "tls": {"cert": str(self.cert), "key": str(self.key)}}
        self.observe(proxy={"enabled": True, "endpoints": {"billing": endpoint}})
        self.cert.write_bytes(b"-----BEGIN")
        self.assertIsNone(self.seconds(self.cert))
        self.cert.unlink()
        self.assertIsNone(self.seconds(self.cert))
