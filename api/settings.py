"""How a node is told where its data is, which database, which port; nothing else configures it from outside."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ledger.database import database_url

PASSPHRASE_VARIABLE = "SATCHEL_PASSPHRASE"
"""Environment variable with the passphrase of the key files; not needed, and not read, on a devnet."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    data: Path
    database: str | None = None
    """URL; None: SQLite in the data folder."""
    devnet: bool = False
    genesis: str = "devnet"
    """Name of a packaged genesis or path of a TOML file; read only when the log is empty."""
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int | None = None
    """Processes that verify signatures; None: what measured best for this machine."""
    evm_url: str | None = None
    """JSON-RPC of the EVM chain; None: the chain is not served."""
    passphrase: str | None = None

    @property
    def url(self) -> str:
        return database_url(self.data, self.database)
