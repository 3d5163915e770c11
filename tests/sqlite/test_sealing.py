"""Encryption of the embedded file: what is read in it without its keys, and what a changed file does."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import CannotStart
from openhqm.messages import IdempotencyClaim, Reply, Status, Submission
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.sealed_tables import SEALED
from openhqm.sqlite.sealing import Seals, key_id, read_keys
from openhqm.sqlite.sql import fetch_all
from openhqm.testing import REQUESTS
from tests.benches import EncryptedBench, SqliteBench

CANARY = "CANARY-9f2c6d"


def write_key(path: Path, text: str | None = None, mode: int = 0o600) -> str:
    path.write_text(os.urandom(32).hex() if text is None else text)
    path.chmod(mode)
    return str(path)


class FileCase(SynchronousTestCase):
    bench: SqliteBench

    def use(self, bench: SqliteBench) -> None:
        self.bench = bench
        self.addCleanup(bench.close)

    def submit(self, payload: str = CANARY, **fields: Any) -> str:
        accepted = self.bench.queue.accept(Submission(f'"{payload}"'.encode(), **fields), None)
        id: str = self.bench_result(accepted).correlation_id
        return id

    def bench_result(self, deferred: Any) -> Any:
        self.bench.pass_time(0)
        return self.successResultOf(deferred)

    def content(self) -> bytes:
        """Every byte below the directory."""
        return b"".join(path.read_bytes() for path in Path(self.bench.directory).glob("openhqm*"))

    def finish(self, result: str = CANARY, dead: bool = False) -> None:
        (delivery,) = self.bench_result(self.bench.queue.receive(REQUESTS, 1))
        id = delivery.request.correlation_id
        self.bench_result(delivery.progress({"note": CANARY}))
        self.bench_result(delivery.retry(0, CANARY))
        (delivery,) = self.bench_result(self.bench.queue.receive(REQUESTS, 1))
        status = Status.FAILED if dead else Status.COMPLETED
        reply = Reply(id, status, self.bench.now(), result=f'"{result}"'.encode(), error=CANARY, attempt=2)
        self.bench_result(delivery.dead_letter(CANARY, reply) if dead else delivery.settle(reply))

    def everything(self) -> list[str]:
        """Requests in each state, with the canary wherever a caller or a handler can write."""
        ids = [self.submit(headers={"X-Secret": CANARY}, metadata={"secret": CANARY}) for _ in range(2)]
        self.finish()
        self.finish(dead=True)
        claim = IdempotencyClaim(CANARY, b"f")
        follow_up = Submission(f'"{CANARY}"'.encode(), endpoint="billing")
        submission = Submission(f'"{CANARY}"'.encode(), timeout=50.0, not_before=self.bench.now() + 60)
        ids.append(self.bench_result(self.bench.queue.accept(submission, claim, [follow_up])).correlation_id)
        return [*ids, self.submit()]


class SealedTests(FileCase):
    """An encrypted file"""

    def setUp(self) -> None:
        self.use(EncryptedBench())

    def test_canary(self) -> None:
        """No byte of the file or of its log shows what callers and handlers have written, and all of it can be read."""
        ids = self.everything()
        self.assertNotIn(CANARY.encode(), self.content())
        self.bench.crash()
        self.assertNotIn(CANARY.encode(), self.content())
        record = self.bench_result(self.bench.store.find(ids[0]))
        self.assertEqual(record.reply.result, f'"{CANARY}"'.encode())
        ((_, letter),) = self.bench_result(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(letter.reason, CANARY)
        (delivery,) = self.bench_result(self.bench.queue.receive(REQUESTS, 1))
        self.assertEqual(delivery.request.submission.payload, f'"{CANARY}"'.encode())
        self.bench.pass_time(1000)
        self.assertNotIn(CANARY.encode(), self.content())

    def test_every_column(self) -> None:
        """A column that can hold what callers write is sealed, or stands here: a new one is decided about."""
        open_ones = {("claims", "digest"), ("claims", "fingerprint"), ("coalescing", "digest"), ("ending_log", "tags")}
        self.everything()
        connection, found = self.bench.file.connection, set()
        for (table,) in fetch_all(connection, "SELECT name FROM main.sqlite_master WHERE type = 'table'"):
            for _, column, kind, *_ in fetch_all(connection, f"PRAGMA main.table_info({table})"):
                if kind == "BLOB":
                    found.add((table, column))
        sealed = {(table, column) for table, column in found if table.startswith("sealed_")}
        self.assertLessEqual(found - sealed, open_ones)
        self.assertEqual(sealed, {(f"sealed_{table}", column) for table, (_, _, column) in SEALED.items()})

    def test_canary_of_a_plain_file(self) -> None:
        """The same without keys: then the canary is there, so that the test above can fail."""
        self.use(SqliteBench())
        self.everything()
        self.assertIn(CANARY.encode(), self.content())

    def test_no_nonce_twice(self) -> None:
        """No two values have the same salt and counter, also over restarts."""
        seen: list[bytes] = []
        for _ in range(4):
            self.everything()
            self.bench.crash()
        for table, column in (
            ("messages", "body"),
            ("events", "detail"),
            ("endings", "reply"),
            ("dead_letters", "body"),
        ):
            seen += [row[0][9:33] for row in fetch_all(self.bench.file.reader, f"SELECT {column} FROM sealed_{table}")]
        self.assertGreater(len(seen), 30)
        self.assertEqual(len(set(seen)), len(seen))

    def test_swapped(self) -> None:
        """Values that were moved to another row or column, changed, cut or replaced count as empty, and the log says
        where. Nothing that was written for one request is given to another one.
        """
        first, second = self.submit("one"), self.submit("two")
        for _ in range(2):
            self.finish()
        changes = (
            "UPDATE sealed_endings SET reply = (SELECT reply FROM sealed_endings ORDER BY key DESC LIMIT 1)",
            "UPDATE sealed_endings SET reply = (SELECT body FROM sealed_messages m WHERE m.key = sealed_endings.key)",
            "UPDATE sealed_endings SET reply = substr(reply, 1, length(reply) - 1)",
            "UPDATE sealed_endings SET reply = substr(reply, 1, 20)",
            "UPDATE sealed_endings SET reply = x''",
            "UPDATE sealed_endings SET reply = '{}'",
            "UPDATE sealed_endings SET reply = x'02' || substr(reply, 2)",
            "UPDATE sealed_endings SET reply = substr(reply, 1, 40) || x'00' || substr(reply, 42)",
        )
        kept = fetch_all(self.bench.file.reader, "SELECT key, reply FROM sealed_endings ORDER BY key")
        for change in changes:
            self.bench.file.connection.execute(change)
            rows = fetch_all(self.bench.file.reader, "SELECT reply FROM endings ORDER BY key")
            self.assertEqual(rows[0][0], b"", change)
            for key, reply in kept:
                self.bench.file.connection.execute("UPDATE sealed_endings SET reply = ? WHERE key = ?", (reply, key))
        for each in (first, second):
            self.assertEqual(self.bench_result(self.bench.store.find(each)).status, Status.COMPLETED)

    def test_changed_while_it_waits(self) -> None:
        """A request whose row was changed is no work: the others go on, and its row stays for a person."""
        self.submit("one")
        self.submit("two")
        change = "UPDATE sealed_messages SET body = (SELECT max(body) FROM sealed_messages)"
        self.bench.file.connection.execute(change)
        deliveries = self.bench_result(self.bench.queue.receive(REQUESTS, 10))
        self.assertEqual(len(deliveries), 1)

    def test_other_file(self) -> None:
        """The same key opens nothing that was sealed in another file."""
        keys = {key_id(b"k" * 32): b"k" * 32}
        one, other = Seals(keys, b"secret of one file"), Seals(keys, b"secret of another one")
        sealed = one.seal("messages 1", b"text")
        self.assertEqual(one.open("messages 1", sealed), b"text")
        self.assertEqual(other.open("messages 1", sealed), b"")
        self.assertEqual(one.open("messages 2", sealed), b"")
        self.assertEqual((one.seal("messages 1", None), one.open("messages 1", None)), (None, None))


class KeysTests(FileCase):
    """The keys of a file"""

    def setUp(self) -> None:
        self.use(EncryptedBench())
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.keys = list(self.bench.key_files())

    def start(self, keys: Sequence[str]) -> SqliteFile:
        """The file, opened with other keys by another process."""
        self.bench.forget()
        file = SqliteFile(self.bench.directory, Clock(), lambda commit: maybeDeferred(commit), key_files=keys)
        file.open()
        self.addCleanup(file.close)
        return file

    def refusal(self, keys: Sequence[str]) -> str:
        return str(self.assertRaises(CannotStart, self.start, keys))

    def test_missing(self) -> None:
        """Without the keys of the file the process does not start, says which is missing, and changes nothing."""
        self.submit()
        self.assertIn("is encrypted: name its keys", self.refusal([]))
        other = write_key(self.directory / "other")
        (used,) = read_keys(self.keys)
        (offered,) = read_keys([other])
        for _ in range(2):
            text = str(self.assertRaises(CannotStart, self._open, [other]))
            self.assertIn(used.hex(), text)
            self.assertIn(offered.hex(), text)
        self._open(self.keys).close()

    def _open(self, keys: Sequence[str]) -> SqliteFile:
        file = SqliteFile(self.bench.directory, Clock(), lambda commit: maybeDeferred(commit), key_files=keys)
        file.open()
        return file

    def test_rotation(self) -> None:
        """A new key seals what comes, the old one opens what is there, and can go once no row has it any more."""
        self.submit("old")
        new = write_key(self.directory / "new", b64encode(os.urandom(32)).decode() + "\n")
        file = self.start([new, *self.keys])
        (row,) = fetch_all(file.reader, "SELECT body FROM messages")
        self.assertIn(b"old", row[0])
        file.connection.execute("INSERT INTO messages VALUES (1, 2.0, x'6e6577')")
        ids = {row[0] for row in fetch_all(file.reader, "SELECT substr(body, 2, 8) FROM sealed_messages")}
        self.assertEqual(ids, set(read_keys([new, *self.keys])))
        file.close()
        self.assertIn("rows that are sealed with the key", str(self.assertRaises(CannotStart, self._open, [new])))
        file = self._open([*self.keys, new])
        file.connection.execute("DELETE FROM messages WHERE key <> 1")
        file.close()
        file = self._open([new])
        self.assertEqual(fetch_all(file.reader, "SELECT body FROM messages"), [(b"new",)])
        file.close()

    def test_plain_file(self) -> None:
        """A file that was made without keys is not encrypted in part: it is refused."""
        plain = SqliteBench()
        self.addCleanup(plain.close)
        plain.forget()
        file = SqliteFile(plain.directory, Clock(), lambda commit: maybeDeferred(commit), key_files=self.keys)
        self.assertIn("was made without encryption", str(self.assertRaises(CannotStart, file.open)))
        plain.open()

    def test_bad_files(self) -> None:
        """What is no key, or can be read by others, is refused with the name of the file and never with its content."""
        bad: tuple[tuple[str, int], ...] = (
            ("", 0o600),
            ("abc", 0o600),
            (os.urandom(31).hex(), 0o600),
            (os.urandom(33).hex(), 0o600),
            (b64encode(os.urandom(16)).decode(), 0o600),
            ("\x00" * 32, 0o600),
            ("-----BEGIN PRIVATE KEY-----", 0o600),
            (os.urandom(5000).hex(), 0o600),
            (os.urandom(32).hex(), 0o604),
            (os.urandom(32).hex(), 0o660),
        )
        for number, (text, mode) in enumerate(bad):
            path = write_key(self.directory / f"bad{number}", text, mode)
            error = str(self.assertRaises(CannotStart, read_keys, [path]))
            self.assertIn(path, error)
            if len(text) > 5:
                self.assertNotIn(text, error)
        self.assertIn("nowhere", str(self.assertRaises(CannotStart, read_keys, ["nowhere"])))
