"""Proof of reserves: a snapshot of the ledger becomes leaves, a sum tree, a header and a row of a public log."""
