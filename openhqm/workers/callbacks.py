# -*- test-case-name: tests.workers.test_callbacks -*-
"""The handler that sends callbacks: one attempt posts the reply to the URL that the caller named, signed.

Every attempt at a callback has the same ``webhook-id``, by which its receiver knows it again, and the same content.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm import __version__
from openhqm.delivery.documents import response_document
from openhqm.errors import Reject, RetryLater
from openhqm.http1.calls import Fetched
from openhqm.http1.client import IFetch
from openhqm.http1.failures import AnswerTooLong, root_cause
from openhqm.http1.field_lines import FieldTemplate
from openhqm.policy.callbacks import CALLBACK_URL
from openhqm.policy.webhooks import signature
from openhqm.runtime.steady_time import ahead_of
from openhqm.runtime.time_limits import TimeLimits
from openhqm.workers.delays import delay_seconds
from openhqm.workers.handlers import Response, Work
from openhqm.workers.metrics import WorkerMetrics
from openhqm.workers.outgoing import Outgoing

MOST_ANSWER_BYTES = 64 * 1024
LONGEST_PAUSE_SECONDS = 86400.0
GONE = 410
_RECEIVER = "the receiver of the callback"
_FIELDS = FieldTemplate(
    (
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"OpenHQM/%b" % __version__.encode()),
        (b"Webhook-Id", None),
        (b"Webhook-Timestamp", None),
        (b"Webhook-Signature", None),
        (b"OpenHQM-Attempt", None),
    )
)


class Calling:
    """A `Handler` that posts replies, signed by each of ``secrets``. ``client`` guards where it connects."""

    keeps_time = True

    def __init__(self, client: IFetch, secrets: Sequence[bytes], clock: IReactorTime, metrics: WorkerMetrics) -> None:
        self._client = client
        self._metrics = metrics
        self._secrets = secrets
        self._clock = clock
        self._limits = TimeLimits(clock)

    def __call__(self, work: Work) -> Deferred[Response]:
        """Post the reply. Fires where its receiver has answered with a status from 200 to 299.

        `RetryLater`: it did not, or could not be called. `Reject`: it wants nothing more (410). `AttemptTimedOut`: it
        did not answer in time.
        """
        reply = work.request.submission.parent_reply
        if reply is None:
            raise Reject("there is no reply to send")
        ahead = ahead_of(self._clock)()
        content = response_document(reply, ahead=ahead)
        now = int(self._clock.seconds() + ahead)
        fields = _FIELDS.fill(
            (
                reply.correlation_id.encode(),
                b"%d" % now,
                signature(self._secrets, reply.correlation_id, now, content).encode(),
                b"%d" % work.attempt,
            )
        )
        outgoing: Outgoing[Response] = Outgoing(_RECEIVER, work.correlation_id, work.time_left, self._limits)
        url = str(work.metadata[CALLBACK_URL]).encode("utf-8")
        answered = self._client.fetch(b"POST", url, fields, content, MOST_ANSWER_BYTES)
        answered.addErrback(_too_long).addErrback(outgoing.explain)
        return outgoing.within_limit(answered.addCallback(self._judged)).addBoth(self._counted, work)

    def _counted(self, result: Response | Failure, work: Work) -> Response | Failure:
        if not isinstance(result, Failure):
            self._metrics.called_back("delivered")
        elif not result.check(CancelledError):  # the process stops: the attempt did not count
            dead = result.check(Reject) is not None or work.attempt >= work.max_attempts
            self._metrics.called_back("dead" if dead else "retried")
        return result

    def _judged(self, fetched: Fetched) -> Response:
        status = fetched.status
        if 200 <= status < 300:
            return Response({"delivered": status}, status_code=status)
        summary = f"{_RECEIVER} answered {status}"
        if status == GONE:
            raise Reject(f"{summary}: it wants no more")
        raise RetryLater(None, summary, at_least=self._asked(fetched.field(b"retry-after")))

    def _asked(self, retry_after: bytes | None) -> float | None:
        """For how many seconds the receiver asks. None: it does not, or they cannot be read."""
        if retry_after is None:
            return None
        try:
            seconds = delay_seconds(retry_after, self._clock.seconds() + ahead_of(self._clock)())
        except ValueError:
            return None
        return min(seconds, LONGEST_PAUSE_SECONDS)


def _too_long(failure: Failure) -> Failure:
    """An answer that is too long has not said that the callback is unwanted: there is another attempt."""
    if failure.value is not None and isinstance(root_cause(failure.value), AnswerTooLong):
        raise RetryLater(None, f"{_RECEIVER} answered with more than {MOST_ANSWER_BYTES} bytes")
    return failure
