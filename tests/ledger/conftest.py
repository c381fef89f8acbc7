"""Settings of the ledger's tests."""

from __future__ import annotations

from hypothesis import settings

# A loaded machine is slow, which is no fault of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
