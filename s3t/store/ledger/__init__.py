"""The ledger of a store: its file, its chain of rows, what they record, and who looks after it."""
