"""The names in certificates."""

from __future__ import annotations

from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.certificate_names import Certificate, read_certificate, same_name
from tests.authorities import Authority


class NamesTests(SynchronousTestCase):
    """`read_certificate` and `same_name`"""

    def read(self, *names: str, subject: str = "CN=a") -> Certificate:
        directory = Path(self.mktemp())
        directory.mkdir()
        path, _ = Authority(directory).issue("a", *names, subject=subject)
        return read_certificate(load_pem_x509_certificate(path.read_bytes()))

    def test_kinds(self) -> None:
        """Each kind of name is found as an operator writes it, host names without regard to case."""
        names = ("DNS:A.example", "URI:spiffe://Acme/b", "email:a@b.example", "IP:::1", "IP:192.0.2.1")
        found = self.read(*names, subject="CN=billing,O=Acme")
        written = ("DNS:a.EXAMPLE", "URI:spiffe://Acme/b", "email:a@b.example", "IP:0::1", "IP:192.0.2.1")
        self.assertEqual(found.names, {*(same_name(each) for each in written), "subject:CN=billing,O=Acme"})

    def test_subject(self) -> None:
        """A comma in a name does not make another organisation."""
        self.assertNotIn(same_name("subject:CN=admin,O=Acme"), self.read(subject="CN=admin\\,O=Acme").names)
        self.assertIn(same_name("subject:CN=admin\\,O\\=Acme"), self.read(subject="CN=admin\\,O\\=Acme").names)
        self.assertNotIn("DNS:admin", self.read(subject="CN=DNS:admin").names)

    def test_wrong(self) -> None:
        """A subject in another form, and a wrong address, are refused at the start."""
        for name in ("subject:/O=Acme/CN=a", "subject:CN", "IP:localhost"):
            self.assertRaises(ValueError, same_name, name)

    def test_times(self) -> None:
        """A certificate is good from its first second to its last."""
        certificate = Certificate(frozenset(), 10, 20)
        self.assertEqual([certificate.is_live(now) for now in (9.9, 10, 19.9, 20)], [False, True, True, False])
