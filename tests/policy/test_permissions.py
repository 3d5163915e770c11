"""What each tenant may ask for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, NotPermitted
from openhqm.messages import Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.permissions import Permission, Permissions


def permissions(**rows: Permission) -> Permissions:
    return Permissions({("*" if name == "others" else name): row for name, row in rows.items()})


class PermissionsTests(SynchronousTestCase):
    def test_rows(self) -> None:
        """The row of a tenant counts, else that of all others, else there is none; nor for what has no tenant."""
        mine, others = Permission(("a",)), Permission(("b",))
        both = permissions(acme=mine, others=others)
        self.assertEqual([both.of(name) for name in ("acme", "globex", None)], [mine, others, None])
        self.assertIsNone(permissions(acme=mine).of("globex"))

    def test_addressed(self) -> None:
        """A request goes where its tenant may go, by name, by default or to a Python handler, and nowhere else."""
        table = permissions(
            acme=Permission(endpoints=("billing",)), none=Permission(endpoints=()), work=Permission(operations=("sum",))
        )
        for handler in (False, True):
            rules = Addressing(
                ("billing", "mail"), default=None if handler else "mail", handler=handler, permissions=table
            )
            for tenant, metadata, field in (
                ("acme", {"endpoint": "billing"}, None),
                ("acme", {"endpoint": "mail"}, "metadata.endpoint"),
                ("acme", {}, None if handler else "metadata.endpoint"),
                ("none", {"endpoint": "billing"}, "metadata.endpoint"),
                ("none", {}, None if handler else "metadata.endpoint"),
                ("work", {"operation": "sum"}, None),
                ("work", {"operation": "drop"}, "metadata.operation"),
                ("work", {}, "metadata.operation"),
                ("globex", {"endpoint": "mail"}, None),
                (None, {"endpoint": "mail"}, None),
            ):
                submission = Submission(b"{}", metadata=metadata, tenant=tenant)
                if field is None:
                    rules.addressed(submission)
                else:
                    error = self.assertRaises(NotPermitted, rules.addressed, submission)
                    self.assertEqual(error.field, field, (handler, tenant, metadata))

    def test_unknown_first(self) -> None:
        """An endpoint that does not exist is unknown to everybody, and not forbidden."""
        rules = Addressing(("billing",), default="billing", permissions=permissions(acme=Permission(endpoints=())))
        error = self.assertRaises(
            InvalidRequest, rules.addressed, Submission(b"1", metadata={"endpoint": "x"}, tenant="acme")
        )
        self.assertNotIsInstance(error, NotPermitted)

    def test_operation_in_the_payload(self) -> None:
        """An operation counts wherever a request names it."""
        rules = Addressing(handler=True, permissions=permissions(work=Permission(operations=("sum",))))
        rules.addressed(Submission(b'{"operation": "sum"}', tenant="work"))
        self.assertRaises(NotPermitted, rules.addressed, Submission(b'{"operation": "x"}', tenant="work"))
