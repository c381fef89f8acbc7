"""Every number the rule book defines: ints in, ints out; `State` is not importable here."""

from __future__ import annotations

from ledger import compiled

compiled.extend(__path__, __name__)
