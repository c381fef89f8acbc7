"""The exchange as a deterministic state machine: `apply(state, command)` and what it needs."""

from __future__ import annotations

from ledger import compiled

compiled.extend(__path__, __name__)
