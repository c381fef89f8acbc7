"""`satchel serve`: hands its options to the composition root."""

from __future__ import annotations

from pathlib import Path

from tools.terminal import FINE


def serve(
    devnet: bool, data: Path, database: str | None, host: str, port: int, genesis: Path | None, as_json: bool
) -> int:
    """Run the exchange until it is told to stop."""
    from api.app import serve as run_exchange

    run_exchange(devnet=devnet, data=data, database=database, host=host, port=port, genesis=genesis, log_json=as_json)
    return FINE
