"""`satchel reconcile`: the ledger's custody accounts against what is on chain, wallet by wallet.   [D-11]"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from api.custody import tokens_of
from chains import schema as chain_schema
from chains.adapter import Adapter, ChainError
from chains.exchange import Token
from chains.reconciliation import Reconciliation
from chains.reconciliation import reconcile as compare
from chains.simulated import SimulatedChain, SimulatedNode
from engine import clock, markets
from engine.commands import ConfigureAsset, ConfigureChain, ConfigureToken, Genesis, decode
from engine.events import Outcome
from engine.state import State
from ledger import schema
from ledger.amounts import format_decimal
from tools.journal_books import JournalBooks
from tools.node_data import readable_sqlite, reading
from tools.settled_payouts import unproven
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, print_table

SIMULATED_CHAIN = 1
CHAIN_FILE = "chain.db"
"""Where a devnet keeps its simulated chain, under --data."""

ATTEMPTS = 3
"""A running node moves between two reads; a break that is one shows each time."""

Found = tuple[Reconciliation, list[str]]
"""The lines of a chain, and what the journal says of its transactions that the chain does not bear out."""


def reconcile(data: Path, database: str | None, evm: Sequence[str], as_json: bool) -> int:
    """Every line of every chain that can be asked; 1 when a difference is left that nothing explains."""
    urls = _node_urls(evm)
    with reading(data, database) as engine:
        state = _configured(engine)
        found: list[Found] = []
        skipped: list[str] = []
        for chain_id in _followed(engine):
            tokens = tokens_of(state, chain_id)
            name = state.chains[chain_id].name
            if chain_id in urls or name in urls:
                found.append(_on_evm(engine, urls.get(chain_id) or urls[name], chain_id, tokens))
            elif (data / CHAIN_FILE).is_file() and chain_id == SIMULATED_CHAIN:
                found.append(_on_simulated(engine, data / CHAIN_FILE, tokens))
            else:
                skipped.append(name)
        if skipped and not found:
            raise CannotRun(f"no node to ask for {', '.join(skipped)}", "name one: --evm CHAIN=http://127.0.0.1:8545")
        if not found:
            raise CannotRun("this exchange follows no chain yet", "start it once: `satchel serve`")
    rows = [_row(state, result, line) for result, _ in found for line in result.lines]
    breaks = [row for row in rows if row["difference"] != "0" or row["doubts"]]
    facts = [words for _, unproven_facts in found for words in unproven_facts]
    clean = not breaks and not facts
    if as_json:
        at = {state.chains[one.chain_id].name: {"height": one.block.height, "hash": one.block.hash} for one, _ in found}
        print_json(
            {"clean": clean, "at": at, "rows": rows, "breaks": breaks, "unproven": facts, "notAsked": skipped}
        )
    else:
        names = ("chain", "wallet", "asset", "ledger", "explained", "onChain", "difference")
        print_table(names, [[row[name] for name in names] for row in rows], numbers=(3, 4, 5, 6))
        for row in breaks:
            for words in row["doubts"]:
                print(f"{row['chain']} {row['wallet']} {row['asset']}: {words}")
        for words in facts:
            print(words)
        for one, _ in found:
            print(f"{state.chains[one.chain_id].name} at block {one.block.height}")
        for name in skipped:
            print(f"{name}: not asked, no --evm for it")
        print("clean" if clean else f"{len(breaks)} break(s), {len(facts)} unproven")
    return FINE if clean else FINDINGS


def _configured(engine: sa.Engine) -> State:
    """Assets, chains and tokens as the log's commands configured them; nothing else of the state is needed."""
    state = State()
    table = schema.command
    wanted = {"Genesis", "ConfigureAsset", "ConfigureChain", "ConfigureToken"}
    query = sa.select(table.c.at_us, table.c.payload).where(table.c.kind.in_(wanted), table.c.outcome == 0)
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.seq)).all()
    for at_us, payload in rows:
        outcome = Outcome(1, at_us)
        match decode(payload):
            case Genesis() as command:
                clock.begin(state, command, outcome)
            case ConfigureAsset() as command:
                markets.configure_asset(state, command, outcome)
            case ConfigureChain() as command:
                markets.configure_chain(state, command, outcome)
            case ConfigureToken() as command:
                markets.configure_token(state, command, outcome)
    return state


def _followed(engine: sa.Engine) -> list[int]:
    table = chain_schema.cursors
    if not sa.inspect(engine).has_table(table.name):
        return []
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table.c.chain_id).order_by(table.c.chain_id)).scalars())


def _on_simulated(engine: sa.Engine, file: Path, tokens: Sequence[Token]) -> Found:
    result = None
    for _ in range(ATTEMPTS):
        with _copied(file) as copy:
            chain = SimulatedChain(copy)
            try:
                result = _compared(engine, SimulatedNode(chain, SIMULATED_CHAIN), tokens)
            finally:
                chain.close()
        if not result[0].breaks and not result[1]:
            break
    assert result is not None
    return result


def _on_evm(engine: sa.Engine, url: str, chain_id: int, tokens: Sequence[Token]) -> Found:
    try:
        from chains.evm import EvmNode
    except ImportError as problem:
        raise CannotRun(f"no EVM support: {problem}", "pip install 'satchel-exchange[evm]'") from None

    node = EvmNode(url, chain_id)

    async def ask() -> Found:
        try:
            return await _compare(engine, node, tokens)
        finally:
            await node.close()

    return _or_cannot(asyncio.run, ask())


def _compared(engine: sa.Engine, node: Adapter, tokens: Sequence[Token]) -> Found:
    return _or_cannot(asyncio.run, _compare(engine, node, tokens))


async def _compare(engine: sa.Engine, node: Adapter, tokens: Sequence[Token]) -> Found:
    result = await compare(engine, node, tokens, JournalBooks(engine), now_us=time.time_ns() // 1_000, record=False)
    return result, await unproven(engine, node, tokens)


def _or_cannot(run: Any, work: Any) -> Found:
    try:
        result: Found = run(work)
        return result
    except ChainError as problem:
        raise CannotRun(str(problem), "check that the node is up and on the chain that this exchange follows") from None


@contextmanager
def _copied(file: Path) -> Iterator[Path]:
    """A private copy of the simulated chain as it stands: asking it must not change the original."""
    with tempfile.TemporaryDirectory(prefix="satchel-chain-") as folder, readable_sqlite(file) as uri:
        copy = Path(folder) / file.name
        source, target = sqlite3.connect(uri, uri=True), sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        yield copy


def _node_urls(evm: Sequence[str]) -> dict[Any, str]:
    urls: dict[Any, str] = {}
    for each in evm:
        chain, equals, url = each.partition("=")
        if not equals or not url.startswith(("http://", "https://")):
            raise CannotRun(f"not CHAIN=URL: {each!r}", "write --evm Ethereum=http://127.0.0.1:8545")
        urls[int(chain) if chain.isdigit() else chain] = url
    return urls


def _row(state: State, result: Reconciliation, line: Any) -> dict[str, Any]:
    token = state.tokens[(result.chain_id, line.asset_id)]

    def text(base: int) -> str:
        return format_decimal(base, token.chain_decimals)

    return {
        "chain": state.chains[result.chain_id].name,
        "wallet": "hot" if line.wallet == 0 else f"deposit/{line.wallet}",
        "address": line.address,
        "asset": line.symbol,
        "ledger": text(line.ledger_base),
        "explained": text(sum(line.explained.values())),
        "reasons": {name: text(base) for name, base in sorted(line.explained.items())},
        "onChain": text(line.chain_base),
        "difference": text(line.difference),
        "doubts": list(line.doubts),
    }
