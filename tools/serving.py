"""`satchel serve`: hands its options to the composition root, and says in words why it could not start or stopped."""

from __future__ import annotations

import errno
from pathlib import Path

from ledger.database import database_url
from tools.terminal import FINE, CannotRun


def serve(
    devnet: bool,
    data: Path,
    database: str | None,
    host: str,
    port: int,
    genesis: Path | None,
    evm_url: str | None,
    as_json: bool,
) -> int:
    """Run the exchange until SIGINT or SIGTERM; what halted it is exit code 2 with its reason."""
    from api.app import serve as run_exchange
    from api.node import born_as
    from engine.genesis import GenesisError
    from engine.replay import Divergence
    from ledger.invariants import ConservationError
    from ledger.signing import KeyFileError
    from ledger.store import StoreError, WriterHeld
    from por.canonical import BuildRefused

    if not devnet and genesis is None and born_as(database_url(data, database)) is None:
        raise CannotRun(
            f"no exchange begins under {data} yet, and nothing says which",
            "give --devnet for a sandbox, or --genesis FILE for an exchange of your own: see docs/operations.md",
        )
    try:
        run_exchange(
            devnet=devnet,
            data=data,
            database=database,
            host=host,
            port=port,
            genesis=genesis,
            evm_url=evm_url,
            log_json=as_json,
        )
    except GenesisError as problem:
        raise CannotRun(f"genesis: {problem}", "correct the file; nothing was started or written") from None
    except Divergence as problem:
        raise CannotRun(f"the log does not replay: {problem}", "run `satchel verify-journal`") from None
    except (ConservationError, BuildRefused) as problem:
        # Nothing was published that does not add up; starting again would find the same.  
        raise CannotRun(f"stopped: {problem}", "run `satchel verify-journal`, then `satchel replay`") from None
    except WriterHeld as problem:
        raise CannotRun(
            f"an exchange already runs on this log: {problem}",
            "use that one, stop it first, or give this one another --data DIR (or --database URL)",
        ) from None
    except StoreError as problem:
        raise CannotRun(f"stopped: {problem}", "see to the database or the disk, then start again") from None
    except KeyFileError as problem:
        raise CannotRun(str(problem), "put the key back, or give its passphrase in SATCHEL_PASSPHRASE") from None
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise CannotRun(f"port {port} of {host} is taken", "stop what listens there, or choose --port") from None
        raise CannotRun(f"stopped: {problem}", "see to the disk or the network, then start again") from None
    return FINE
