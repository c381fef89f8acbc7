"""The edge: HTTP, streams, recovery, and the node that puts ledger, engine, chains and proofs together."""
