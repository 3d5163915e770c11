"""The embedded SQLite backend: queue, results and ledger in one file."""
