"""Money, accounts, journal, signatures, blocks, store and verification; knows nothing of markets."""
