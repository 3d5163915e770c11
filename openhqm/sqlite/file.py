# -*- test-case-name: tests.sqlite.test_file -*-
"""The embedded file: one connection that writes, one that reads, and one sync for many writes.

Statements run in the reactor's thread: they touch pages in memory, in microseconds. Only the commit waits for the disk,
in a thread of its own; there a transaction also waits for another program that has locked the file. All writes that are
asked for while one commit is under way go into the next one together, so the cost of a sync is spread over as many
requests as arrive during one. Reads go through the second, read-only connection and never wait for a commit.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import CannotStart, FileInUse, NotDurable
from openhqm.policy.ids import CorrelationIds
from openhqm.runtime.forks import keep_from_forks
from openhqm.sqlite.opening import check_layout, configure, create, open_database, step_up
from openhqm.sqlite.patience import LOCKED, begin, begin_patiently
from openhqm.sqlite.sealed_tables import open_seals, show_sealed
from openhqm.sqlite.soundness import DAMAGE, Presence, check_files, check_pages, frames_in_log, torn_frames
from openhqm.sqlite.sql import Reader, fetch_one
from openhqm.sqlite.waiting import Caller, Operation, Refused, Step, Waiting

T = TypeVar("T")
RunCommit = Callable[[Callable[[], None]], Deferred[None]]

OLDEST_SQLITE = 3051003  # older ones can lose rows when a commit and a checkpoint of two connections meet
MOST_WAITING = 20_000
MOST_IN_ONE_COMMIT = 256
PROBE_SECONDS = 2.0
LITTLE_SPACE = 64 * 1024 * 1024
STORAGE_ERRORS = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.BusyError,
)


class SqliteFile:
    """The database in ``directory``. ``run_commit`` runs a blocking function, and fires when it is done.
    A transaction begins ``wait`` seconds after the first write that it is for: the more writes share a sync, the fewer
    syncs wear the disk. ``key_files`` has the keys of an encrypted file (`openhqm.sqlite.sealing`).

    `write` is the one way to change anything. An operation is a function of the connection; it may run twice
    (when another one in its transaction failed), so all it does outside the database goes to `after_commit`.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        clock: IReactorTime,
        run_commit: RunCommit,
        wait: float = 0.0,
        key_files: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self._path = os.path.join(directory, "openhqm.db")
        self._damage: str | None = None
        self._unwritable: str | None = None
        self._clock = clock
        self._run_commit = run_commit
        self._wait = wait
        self._key_files = key_files
        self.waiting = Waiting()
        self.together = self.waiting.together
        self._after: list[Callable[[], None]] = []
        self._scheduled = False
        self._committing = False
        self._patient = True
        self._in_use = Lock()  # the connection: a thread that finds it taken gets an error from apsw
        self._begun_in_thread = False
        self._closing: Deferred[None] | None = None
        self._probe: Any = None
        self._lock: int | None = None

    def open(self) -> None:
        """Take the file for this process and check it; `FileInUse`, `CannotStart`."""
        if apsw.SQLITE_VERSION_NUMBER < OLDEST_SQLITE:
            raise CannotStart(f"SQLite {apsw.sqlite_lib_version()} is too old: 3.51.3 or newer is needed")
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            self._lock = self._take_lock(os.path.join(self.directory, "openhqm.lock"))
        except OSError as error:
            raise CannotStart(f"{self.directory}: {error.strerror}") from None
        path = self._path
        try:
            if not check_files(path):
                create(path, bool(self._key_files))
            self.connection = self._connect(path)
            secret = fetch_one(self.connection, "SELECT value FROM meta WHERE name='secret'")[0]
            self.reader = open_database(path, apsw.SQLITE_OPEN_READONLY, Reader)
            if self._seals is not None:
                show_sealed(self.connection, self._seals, writes=True)
                show_sealed(self.reader, self._seals, writes=False)
            self.reader.failed = self._unreadable
            self.ids = CorrelationIds(secret)
            self._presence = Presence(path)
        except (apsw.Error, OSError, CannotStart) as error:
            self._release_lock()
            raise error if isinstance(error, CannotStart) else CannotStart(f"{path}: {error}") from None
        if self.space < LITTLE_SPACE:
            self._log.warn("little space left on the disk of {path}", path=path)

    @property
    def space(self) -> int:
        """How many bytes are free on the disk that the file is on."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    @property
    def size(self) -> int:
        """How many bytes the file takes."""
        return os.path.getsize(self._path)

    @property
    def unavailable_reason(self) -> str | None:
        """Why the file cannot be used now, or None."""
        return self._damage or self._unwritable

    def write_now(self, operation: Operation[T]) -> T:
        """Run a small operation at once, as at the start. `NotDurable`: nothing of it is in the file.

        It waits for a commit that is under way.
        """
        if self._begun_in_thread:  # it would become part of a transaction that may fail
            raise NotDurable(f"{self._path} is busy", retry_after=1)
        try:
            with self._in_use:
                return operation(self.connection)
        except STORAGE_ERRORS as error:
            raise NotDurable(f"{self._path} cannot be written: {error}") from None

    def write(self, operation: Operation[T]) -> Deferred[T]:
        """Run ``operation`` in a transaction with all others that were asked for at the same time.

        Fires with its result once that is on disk. `NotDurable`: nothing of it is in the file.
        """
        done: Deferred[T] = Deferred()
        self.write_for(done, operation)
        return done

    def write_for(self, done: Caller, operation: Operation[Any], step: Step | None = None) -> None:
        """As `write`, which ``done`` is told of. ``step``: what it belongs to, where that is not the one under way."""
        if self._closing is not None or self._lock is None:
            done.errback(NotDurable("the database is closed"))
        elif self._damage is not None:
            done.errback(NotDurable(self._damage))
        elif self.waiting.size >= MOST_WAITING:
            done.errback(NotDurable("too many writes wait for the disk", retry_after=1))
        else:
            self.waiting.add(operation, done, step)
            if not self._committing and not self._scheduled:
                self._scheduled = True
                self._clock.callLater(self._wait, self._begin)

    @property
    def committing(self) -> bool:
        """Whether a commit is under way in its thread."""
        return self._committing

    def after_commit(self, call: Callable[[], None]) -> None:
        """From within an operation: call this once the operation is on disk, and not if it fails."""
        self._after.append(call)

    def close(self) -> Deferred[None]:
        """Commit the writes that wait, and let go of the file."""
        if self._lock is None:
            return succeed(None)
        self._closing = Deferred()
        closed = self._closing
        if not self._committing and not self._scheduled:
            self._let_go()
        return closed

    def _begin(self) -> None:
        self._scheduled = False
        batch = self.waiting.take(MOST_IN_ONE_COMMIT)
        if not batch:
            if self._closing is not None:
                self._let_go()
            return
        self._committing = True
        try:
            self._presence.check()
            begun = self._begin_at_once()
        except STORAGE_ERRORS as error:
            self._failed([done for _, done in batch], error)
            return
        if begun:
            self._transact(batch)
            return
        if self._unwritable is not None:  # it was waited for already
            self._failed([done for _, done in batch], apsw.BusyError(LOCKED))
            return
        self._begun_in_thread = True
        self._run_commit(lambda: begin_patiently(self.connection, self._in_use)).addCallbacks(
            lambda _: self._transact(batch), lambda failure: self._failed([done for _, done in batch], failure.value)
        )

    def _begin_at_once(self) -> bool:
        if self._patient:  # the reactor runs now, and SQLite must not wait in it
            self._patient = False
            for connection in (self.connection, self.reader):
                connection.set_busy_timeout(0)
        return begin(self.connection)

    def _transact(self, batch: list[tuple[Operation[Any], Caller]]) -> None:
        """A transaction has begun: run the operations in it, and have it committed."""
        self._begun_in_thread = False
        finished: list[tuple[Caller, Any]] = []
        try:
            finished = self._apply(batch)
        except STORAGE_ERRORS as error:
            self._failed([done for _, done in batch], error)
            return
        committed = self._run_commit(self._commit)
        committed.addCallbacks(
            lambda _: self._committed(finished),
            lambda failure: self._failed([done for done, _ in finished], failure.value, maybe_done=True),
        )

    def _apply(self, batch: list[tuple[Operation[Any], Caller]]) -> list[tuple[Caller, Any]]:
        """Run the operations in the open transaction. One that fails by itself is left out of it."""
        self._after = []
        while True:
            finished = []
            for index, (operation, done) in enumerate(batch):
                try:
                    finished.append((done, operation(self.connection)))
                except STORAGE_ERRORS:
                    self._roll_back()
                    raise
                except Exception:  # a failure of this operation alone: the others go on
                    self._roll_back()
                    self._after = []
                    failure = Failure()
                    del batch[index]
                    self._clock.callLater(0, done.errback, failure)
                    self.connection.execute("BEGIN IMMEDIATE")
                    break
            else:
                return finished

    def _commit(self) -> None:
        with self._in_use:
            self.connection.execute("COMMIT")

    def _committed(self, finished: list[tuple[Caller, Any]]) -> None:
        """A commit to a file that was removed succeeds, and its rows are lost: so it must still be there afterwards.

        The thread of the commit does not look itself: it would wait for the interpreter's lock once more.
        """
        try:
            self._presence.check()
        except apsw.CantOpenError as error:
            self._failed([done for done, _ in finished], error, maybe_done=True)
            return
        if self._unwritable is not None:
            self._log.info("the database can be written again", unavailable_reason=self._unwritable)
            self._unwritable = None
        after, self._after = self._after, []
        self._committing = False
        for call in after:
            call()
        for done, result in finished:
            if not done.called:
                done.callback(result) if type(result) is not Refused else done.errback(result.error)
        self._go_on()

    def _failed(self, failed: list[Caller], error: BaseException, maybe_done: bool = False) -> None:
        """Disk full, or an I/O error: every write of this commit fails, and a probe finds out when it is over."""
        self._begun_in_thread = False
        self._roll_back()
        self._after = []
        self._committing = False
        reason = f"the database cannot be written: {error}"
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            reason = self._damaged(error).reason
        elif self._unwritable is None:
            self._log.error("{reason}", reason=reason, path=self.directory)
        self._not_usable(reason)
        for done in failed:
            if not done.called:
                done.errback(NotDurable(reason, maybe_done=maybe_done and not isinstance(error, apsw.FullError)))
        self._go_on()

    def _unreadable(self, error: apsw.Error) -> NotDurable:
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            return self._damaged(error)
        if isinstance(error, apsw.BusyError):
            return NotDurable(f"another program has locked {self._path}", retry_after=1)
        reason = f"the database cannot be read: {error}"
        if self._unwritable is None:
            self._log.error("{reason}", reason=reason, path=self.directory)
        self._not_usable(reason)
        return NotDurable(reason)

    def _not_usable(self, reason: str) -> None:
        """A probe finds out when it is over."""
        self._unwritable = reason
        if self._probe is None and self._closing is None:
            self._probe = self._clock.callLater(PROBE_SECONDS, self._try_again)

    def _damaged(self, error: BaseException) -> NotDurable:
        """Nothing is written from now on: it would be built on what is lost."""
        if self._damage is None:
            self._damage = f"{self._path} is damaged ({error}): stop openhqm, and {DAMAGE}"
            self._log.critical("{reason}", reason=self._damage)
        return NotDurable(self._damage)

    def _try_again(self) -> None:
        self._probe = None
        if self._unwritable is not None and self._closing is None:
            self.write(_touch).addErrback(lambda failure: None if failure.check(NotDurable) else failure)

    def _go_on(self) -> None:
        if not self._scheduled and not self._committing and (self.waiting.size or self._closing is not None):
            self._scheduled = True
            self._clock.callLater(0 if self._closing is not None else self._wait, self._begin)

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _connect(self, path: str) -> apsw.Connection:
        frames = frames_in_log(path)
        connection = open_database(path, apsw.SQLITE_OPEN_READWRITE, apsw.Connection)
        try:
            check_layout(connection, path)
            if torn := torn_frames(connection, frames):
                text = "the end of {path}-wal was torn: {frames} pages of a commit that was never confirmed are cut off"
                self._log.warn(text, path=path, frames=torn)
            check_pages(connection, path)
            configure(connection, path)
            step_up(connection)
            self._seals = open_seals(connection, path, self._key_files)
        except BaseException:
            connection.close()  # or its log stays behind, also where the database is moved away
            raise
        return connection

    def _take_lock(self, path: str) -> int:
        """An advisory lock that the kernel lets go of with the process, however that ends."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.read(handle, 32).decode("ascii", "replace").strip()
            os.close(handle)
            raise FileInUse(self.directory, process) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        except OSError:
            os.close(handle)
            raise
        keep_from_forks([handle])  # a child process with a copy of it would hold the lock, too
        return handle

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _let_go(self) -> None:
        if self._lock is None:
            return
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self.reader.close()
        self.connection.close()
        self._release_lock()
        if self._closing is not None:
            self._closing.callback(None)


def _touch(connection: apsw.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', 1)")
