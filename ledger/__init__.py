"""Money, accounts, journal, signatures, blocks, store and verification; knows nothing of markets."""

from __future__ import annotations

from ledger import compiled

compiled.extend(__path__, __name__)
