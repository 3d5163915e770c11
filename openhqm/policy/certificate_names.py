# -*- test-case-name: tests.policy.test_certificate_names -*-
"""The names in a client certificate, as an operator writes them: ``DNS:billing.internal``, ``subject:CN=billing``.

cryptography (the extra ``tls``) is imported where a name is read, and not before.
"""

from __future__ import annotations

from typing import Any

import attrs

SUBJECT = "subject:"


@attrs.frozen
class Certificate:
    """What a certificate says of its owner. Its signatures were verified before. Times are seconds since 1970.

    ``issuer`` (its name in DER) and ``serial`` say which certificate it is.
    """

    names: frozenset[str]
    begins: float
    expires: float
    issuer: bytes = b""
    serial: int = 0

    def is_live(self, now: float) -> bool:
        """Whether it is valid now: a connection may outlive its certificate."""
        return self.begins <= now < self.expires


def read_certificate(certificate: Any) -> Certificate:
    """What stands in an ``x509.Certificate``: its alternative names, or `ValueError` where they cannot be read.

    A part of the subject is no name: ``CN=admin`` beside another organisation is someone else.
    """
    from cryptography import x509

    names = {f"{SUBJECT}{certificate.subject.rfc4514_string()}"}
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = ()
    for each in alternatives:
        if isinstance(each, x509.DNSName):
            names.add(f"DNS:{each.value.lower()}")
        elif isinstance(each, x509.UniformResourceIdentifier):
            names.add(f"URI:{each.value}")
        elif isinstance(each, x509.RFC822Name):
            names.add(f"email:{each.value}")
        elif isinstance(each, x509.IPAddress):
            names.add(f"IP:{each.value}")
    begins, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    issuer = certificate.issuer.public_bytes()
    return Certificate(frozenset(names), begins.timestamp(), expires.timestamp(), issuer, certificate.serial_number)


def same_name(name: str) -> str:
    """A configured name in the form that `read_certificate` has. `ValueError` where a subject cannot be read."""
    if name.startswith(SUBJECT):
        from cryptography import x509

        try:
            return f"{SUBJECT}{x509.Name.from_rfc4514_string(name.removeprefix(SUBJECT)).rfc4514_string()}"
        except ValueError:
            raise ValueError("must be as openssl x509 -subject -nameopt RFC2253 prints it: CN=billing,O=Acme") from None
    kind, _, value = name.partition(":")
    if kind == "IP":
        from ipaddress import ip_address

        return f"IP:{ip_address(value)}"
    return f"DNS:{value.lower()}" if kind == "DNS" else name
