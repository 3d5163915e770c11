"""A rolling update under load, in short; `tests.rolling_update` is the long one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import find_redis
from tests.rolling_update import run, scale_from_zero


class RollingUpdateTests(SynchronousTestCase):
    def setUp(self) -> None:
        find_redis()

    def test_rolled(self) -> None:
        """While three listeners and three workers are replaced, no connection is refused, no request lost, and none
        dead-lettered."""
        said: list[str] = []
        done = run(1, say=said.append)
        self.assertEqual((done["rounds"], done["answered"]), (1, done["accepted"]))
        self.assertGreater(done["accepted"], 20)
        self.assertEqual(len(said), 1)

    def test_from_zero(self) -> None:
        """The first request is answered while there is no worker: the backlog that the scaler tells starts one. Once
        nothing is left, there is none again."""
        self.assertEqual(len(scale_from_zero(2)), 2)
