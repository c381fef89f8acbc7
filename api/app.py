"""The composition root: one screen on which the node, the wire, the streams and the pages are put together."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from api.connections import IDLE_SECONDS, Connections, most_connections
from api.devnet import Devnet
from api.node import Node
from api.pages import add_pages
from api.rest.devnet_table import ROUTES as DEVNET_ROUTES
from api.rest.dispatch import MAX_BODY_BYTES, Edge, contract_errors
from api.rest.table import ROUTES
from api.settings import PASSPHRASE_VARIABLE, Settings
from api.streams.publishing import Streams
from api.verification_pool import VerificationPool

SHUTDOWN_SECONDS = 5.0

SWITCH_SECONDS = 0.0002
"""How long a thread waits for the interpreter lock before it asks for it.

The writers of the log and of the history need it often and briefly; at Python's 5 ms they would wait that long for the
event loop each time. Measured: 1.8 times the rate.
"""

LINGERING_SECONDS = 2.0
"""How long what is left of a refused body is still taken, so that its sender reads the refusal."""

log = logging.getLogger("satchel")


async def build(node: Node) -> tuple[web.Application, Edge]:
    """The application of a started node; `close` of what it starts is tied to the application's cleanup."""
    pool = VerificationPool(node.settings.workers if node.settings.workers is not None else default_workers())
    await pool.start()
    edge = Edge(node, pool)
    streams = Streams(node.state, node.market_data, edge.authenticator.verify_subscription)

    node.listeners.append(streams.on_block)
    app = web.Application(middlewares=[contract_errors(node, edge.limits)], client_max_size=MAX_BODY_BYTES)
    edge.add_routes(app, ROUTES, DEVNET_ROUTES if node.settings.devnet else ())
    if node.settings.devnet:
        app.add_routes(Devnet(node).routes())
    add_pages(app, streams.subscribers.connect)

    async def background(_app: web.Application) -> Any:
        ticking = asyncio.create_task(streams.run())
        yield
        ticking.cancel()
        await streams.subscribers.close()
        await pool.close()

    app.cleanup_ctx.append(background)
    return app, edge


def default_workers() -> int:
    """Signature checks get the cores that the event loop does not use."""
    return 1 if (os.cpu_count() or 1) > 1 else 0


def serve(
    *,
    devnet: bool,
    data: Path,
    database: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    genesis: Path | None = None,
    evm_url: str | None = None,
    log_json: bool = False,
) -> None:
    """Run the exchange until SIGINT or SIGTERM; raises what halted it. Prints `listening on URL` when it answers."""
    if not __debug__:
        raise RuntimeError("Satchel does not run under python -O: its assertions guard money")
    configure_logging(log_json)
    # Whatever the process writes is its owner's: the database, snapshots, proofs.   [T-97]
    os.umask(0o077)
    settings = Settings(
        data=data,
        database=database,
        devnet=devnet,
        genesis=str(genesis) if genesis is not None else "devnet",
        host=host,
        port=port,
        evm_url=evm_url or os.environ.get("SATCHEL_EVM_URL"),
        passphrase=os.environ.get(PASSPHRASE_VARIABLE),
    )
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(settings))
    else:
        uvloop.run(run(settings))


async def run(settings: Settings) -> None:
    """Start the node and its server, wait until told to stop or until something halts it, stop in order."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    node = Node(settings)
    await node.start()
    app, _edge = await build(node)
    tune_interpreter()
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=False,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGERING_SECONDS,
    )
    await runner.setup()
    assert runner.server is not None
    Connections(most_connections()).guard(runner.server)
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        address = runner.addresses[0]
        sys.stdout.write(f"listening on http://{settings.host}:{address[1]}\n")
        sys.stdout.flush()
        waits = [asyncio.create_task(event.wait()) for event in (told, node.failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for waiting in waits:
            waiting.cancel()
    finally:
        await runner.cleanup()
        await node.stop()
    if node.failure is not None:
        raise node.failure


def tune_interpreter() -> None:
    """Once everything long-lived is loaded: threads hand over quickly, the collector leaves what stays alone."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def configure_logging(as_json: bool) -> None:
    """Log lines to stderr; data goes to stdout."""
    shape = '{"at": "%(asctime)s", "level": "%(levelname)s", "from": "%(name)s", "what": "%(message)s"}'
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format=shape if as_json else "%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
