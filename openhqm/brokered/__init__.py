"""The queue over any broker that moves messages, with a ledger beside it."""
