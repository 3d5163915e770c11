# -*- test-case-name: tests.policy.test_addressing -*-
"""Decides the endpoint and the partition of a submission, once, before it is accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import attrs
from msgspec.structs import replace

from openhqm.errors import DestinationRefused, InvalidRequest
from openhqm.messages import Submission
from openhqm.policy.callbacks import refuse
from openhqm.policy.fields import Document, Field, to_text
from openhqm.policy.permissions import Permissions
from openhqm.policy.queue_names import BACKLOG, partition_of, queue_name, share_of
from openhqm.policy.routing import RouteTable
from openhqm.policy.schemas import Schemas


def _refuse(url: str) -> None:
    raise DestinationRefused("requests may not name a URL here")


@attrs.frozen
class Partitioning:
    """Requests with the same value in ``field`` are handled one at a time, in order. ``count`` is the number of
    partitions.
    """

    field: Field
    count: int


@attrs.frozen
class Addressing:
    """The rules that decide where submissions go.

    ``endpoints`` are the names of all endpoints, and ``default`` the one for submissions that name none and match no
    route. Where ``handler`` is true, or for one of ``operations``, a Python handler takes the place of the default.
    ``hidden`` are endpoints that no submission can name: what waits there, the gateway itself has put there.
    ``follow_ups`` says what a submission leaves to be done once it has ended, and raises `InvalidRequest`.
    ``schemas`` say what payloads have to be, and ``permissions`` what each tenant may ask for.
    ``shares`` are the tenants whose requests wait by themselves, in a queue beside that of their endpoint.
    ``apart`` are the endpoints that have a queue for what was accepted while they were away.
    ``callers``, one of the endpoints, is for URLs that requests name themselves: ``check_url`` checks those, and raises
    `DestinationRefused`.
    """

    endpoints: Collection[str] = ()
    hidden: Collection[str] = ()
    default: str | None = None
    callers: str | None = None
    check_url: Callable[[str], object] = _refuse
    follow_ups: Callable[[Submission], tuple[Submission, ...]] = refuse
    handler: bool = False
    operations: Collection[str] = ()
    routes: RouteTable = attrs.field(factory=RouteTable)
    partitioning: Partitioning | None = None
    schemas: Schemas | None = None
    apart: Collection[str] = ()
    permissions: Permissions | None = None
    shares: Collection[str] = ()

    @property
    def shared(self) -> str | None:
        """The endpoint of the queue that has no endpoint in its name. None: that queue is for Python handlers."""
        return None if self.handler or self.operations else self.default

    def addressed(self, submission: Submission, *, complete: bool = True) -> Submission:
        """The submission with its endpoint and partition, and the share of the workers that it waits for.

        Not ``complete``: its payload is not known yet.

        Raises `InvalidRequest` where it has no destination here, `NotPermitted` where its tenant may not ask for that,
        and `PayloadRefused` where a schema refuses it.
        """
        permission = None if self.permissions is None else self.permissions.of(submission.tenant)
        plain = not self.endpoints and self.partitioning is None and self.schemas is None and permission is None
        share = submission.tenant if submission.tenant in self.shares else None
        if plain and "endpoint" not in submission.metadata:
            return submission if share == submission.share else replace(submission, share=share)
        document = Document(submission)
        endpoint = self._endpoint(submission, document)
        if permission is not None:
            permission.check(endpoint, document.operation)
        if self.schemas is not None and complete:
            route = self.routes.choose_for(document) if self.schemas.routes else None
            self.schemas.check(submission, document, endpoint, route)
        endpoint = None if endpoint == self.shared else endpoint
        partition = self._partition(document)
        share = share if partition is None else None  # all tenants wait in a partition, in one order
        if endpoint is None and partition is None and share == submission.share:
            return submission
        return replace(submission, endpoint=endpoint, partition=partition, share=share)

    def share_of(self, tenant: str) -> str | None:
        """Whose share of the workers a submission of ``tenant`` waits for, unless it waits in a partition; None: that
        of all without a row.
        """
        return tenant if tenant in self.shares else None

    def queues(self, requests: str, *, shares: bool = True) -> list[str]:
        """The names of all queues that need workers, with those beside them, where these ``shares`` are told apart."""
        found = []
        for in_name, _, partition in self.lanes():
            name = queue_name(requests, in_name, partition)
            found.append(name)
            if shares and partition is None:
                found += [share_of(name, each) for each in self.shares]
        return found

    def shared_queues(self, requests: str) -> list[str]:
        """The names of the queues that the shares of tenants are beside."""
        return [queue_name(requests, in_name) for in_name, _, partition in self.lanes() if partition is None]

    def lanes(self) -> Iterator[tuple[str | None, str | None, int | None]]:
        """Every queue that needs workers: the endpoint in its name, the endpoint it is for, and its partition."""
        partitions = [None, *range(self.partitioning.count)] if self.partitioning is not None else [None]
        named = [(name, name) for name in self.endpoints if name != self.shared]
        for in_name, endpoint in [(None, self.shared), *named]:
            for partition in partitions:
                yield in_name, endpoint, partition
            if endpoint in self.apart:
                yield in_name, endpoint, BACKLOG
        for name in self.hidden:
            yield name, name, None

    def _endpoint(self, submission: Submission, document: Document) -> str | None:
        named = submission.metadata.get("endpoint")
        if named is not None:
            return self._named(str(named))
        route = self.routes.choose_for(document)
        if route is not None and route.endpoint is not None:
            return route.endpoint
        if self.handler or (self.operations and document.operation in self.operations):
            return None
        if self.default is None and self.endpoints and not self.operations:
            raise InvalidRequest(
                "metadata.endpoint", "is missing: no route matches the request, and there is no default endpoint"
            )
        return self.default

    def _named(self, endpoint: str) -> str:
        if endpoint in self.endpoints and endpoint != self.callers:
            return endpoint
        if self.callers is not None and "://" in endpoint:
            try:
                self.check_url(endpoint)
            except DestinationRefused as error:
                raise InvalidRequest("metadata.endpoint", str(error)) from None
            return self.callers
        more = "" if self.endpoints else ": no endpoints are configured"
        raise InvalidRequest("metadata.endpoint", f"there is no such endpoint{more}")

    def _partition(self, document: Document) -> int | None:
        if self.partitioning is None:
            return None
        key = document.find(self.partitioning.field)
        if key is None or key == b"null":
            return None
        try:
            return partition_of(to_text(key), self.partitioning.count)
        except ValueError:
            raise InvalidRequest(
                self.partitioning.field.name, "is not valid text, so the request has no partition"
            ) from None


def scoped(submission: Submission) -> Submission:
    """The same, with a key that is another one for each tenant and each endpoint."""
    assert submission.coalescing is not None, "it has a key"
    scope = f"{submission.tenant or ''} {submission.endpoint or ''}"
    return replace(submission, coalescing=replace(submission.coalescing, scope=scope))
