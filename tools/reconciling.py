"""`satchel reconcile`: the ledger's custody accounts against what is on chain, wallet by wallet.   [D-11]

Each chain gets a verdict of its own. What is staked is at a validator, where no node of the chain is asked for it: it
is listed as the ledger has it, and does not count as found.   [Y-1]
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
from ledger import balances, schema
from ledger.amounts import format_decimal
from ledger.chart import CUSTODY_WALLET_BITS, HOT_WALLET, AccountKind, kind_of, owner_of
from tools.journal_books import JournalBooks
from tools.node_data import readable_sqlite, reading
from tools.settled_payouts import unproven
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, print_table, say

SIMULATED_CHAIN = 1
CHAIN_FILE = "chain.db"
"""Where a devnet keeps its simulated chain, under --data."""

ATTEMPTS = 3
"""A running node moves between two reads; a break that is one shows each time."""

CLEAN, BROKEN, NOT_ASKED = "clean", "broken", "not asked"
"""What is said of a chain."""


class InLedger(NamedTuple):
    """Atoms of an asset that the ledger has on a chain: in wallets of ours, and at the validator."""

    wallets: int
    staked: int


Kept = dict[tuple[int, int], InLedger]
"""(chain id, asset id) → what the ledger has there."""

Found = tuple[Reconciliation, list[str]]
"""The lines of a chain, and what the journal says of its transactions that the chain does not bear out."""


def reconcile(data: Path, database: str | None, evm: Sequence[str], as_json: bool) -> int:
    """Every line of every chain that can be asked; 1 when a difference is left that nothing explains, or when a chain
    was not asked on which the ledger has coins.
    """
    urls = _node_urls(evm)
    with reading(data, database) as engine:
        state = _configured(engine)
        kept = _kept(engine)
        found: list[Found] = []
        skipped: list[int] = []
        for chain_id in sorted({*_followed(engine), *(chain for chain, _asset in kept)}):
            tokens = tokens_of(state, chain_id)
            name = _chain_name(state, chain_id)
            if chain_id in urls or name in urls:
                found.append(_on_evm(engine, urls.get(chain_id) or urls[name], chain_id, tokens))
            elif (data / CHAIN_FILE).is_file() and chain_id == SIMULATED_CHAIN:
                found.append(_on_simulated(engine, data / CHAIN_FILE, tokens))
            else:
                skipped.append(chain_id)
        if skipped and not found:
            names = ", ".join(_chain_name(state, chain_id) for chain_id in skipped)
            raise CannotRun(f"no node to ask for {names}", "name one: --evm CHAIN=http://127.0.0.1:8545")
        if not found:
            raise CannotRun("this exchange follows no chain yet", "start it once: `satchel serve`")
    verdicts = [_verdict(state, kept, *one) for one in found] + [_unasked(state, kept, chain) for chain in skipped]
    rows = [_row(state, kept, result, line) for result, _ in found for line in result.lines]
    breaks = [row for row in rows if row["difference"] != "0" or row["doubts"]]
    facts = [words for _, unproven_facts in found for words in unproven_facts]
    is_clean = not breaks and not facts
    unasked = [one for one in verdicts if one["verdict"] == NOT_ASKED and (one["inLedger"] or one["staked"])]
    if as_json:
        at = {state.chains[one.chain_id].name: {"height": one.block.height, "hash": one.block.hash} for one, _ in found}
        skipped_names = [_chain_name(state, chain_id) for chain_id in skipped]
        print_json(
            {
                "clean": is_clean and not unasked,
                "chains": verdicts,
                "at": at,
                "rows": rows,
                "breaks": breaks,
                "unproven": facts,
                "notAsked": skipped_names,
            }
        )
    else:
        _print(verdicts, rows, breaks, facts)
    for one in unasked:
        held = ", ".join(f"{amount} {asset}" for asset, amount in (one["inLedger"] | one["staked"]).items())
        say(f"{one['chain']}: not asked, and the ledger has coins there ({held})")
        say(f"  next: name a node of it, --evm {one['chain']}=http://127.0.0.1:8545")
    return FINE if is_clean and not unasked else FINDINGS


def _print(
    verdicts: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    breaks: Sequence[dict[str, Any]],
    facts: Sequence[str],
) -> None:
    names = ("chain", "wallet", "asset", "ledger", "explained", "onChain", "difference")
    cells = [[row[name] for name in names] for row in rows]
    for one in verdicts:
        cells += [[one["chain"], "staked", asset, amount, "", "", ""] for asset, amount in one["staked"].items()]
    print_table(names, cells, numbers=(3, 4, 5, 6))
    for row in breaks:
        for words in (*row["doubts"], *row["notes"]):
            print(f"{row['chain']} {row['wallet']} {row['asset']}: {words}")
    for words in facts:
        print(words)
    if any(one["staked"] for one in verdicts):
        print("staked: as the ledger has it; at the validator, where no chain is asked")
    print(", ".join(_verdict_in_words(one) for one in verdicts))


def _verdict(state: State, kept: Kept, result: Reconciliation, facts: Sequence[str]) -> dict[str, Any]:
    breaks = len(result.breaks)
    return _about(state, kept, result.chain_id) | {
        "verdict": CLEAN if not breaks and not facts else BROKEN,
        "block": result.block.height,
        "breaks": breaks,
        "unproven": len(facts),
    }


def _unasked(state: State, kept: Kept, chain_id: int) -> dict[str, Any]:
    return _about(state, kept, chain_id) | {"verdict": NOT_ASKED}


def _about(state: State, kept: Kept, chain_id: int) -> dict[str, Any]:
    """A chain's name and, per asset, what the ledger has in its wallets and what of its coins it has as staked."""
    coins = [(asset_id, held) for (chain, asset_id), held in sorted(kept.items()) if chain == chain_id]

    def amounts(atoms_of: Callable[[InLedger], int]) -> dict[str, str]:
        return {_symbol(state, asset): _atoms(state, asset, atoms_of(held)) for asset, held in coins if atoms_of(held)}

    return {
        "chain": _chain_name(state, chain_id),
        "inLedger": amounts(lambda held: held.wallets),
        "staked": amounts(lambda held: held.staked),
    }


def _verdict_in_words(one: dict[str, Any]) -> str:
    if one["verdict"] == NOT_ASKED:
        return f"{one['chain']} not asked"
    said = CLEAN if one["verdict"] == CLEAN else f"{one['breaks']} break(s), {one['unproven']} unproven"
    return f"{one['chain']} {said} at block {one['block']}"


def _kept(engine: sa.Engine) -> Kept:
    """What the ledger has on each chain, whether or not a row of the database says that the chain is followed."""
    found: Kept = {}
    kinds = (AccountKind.CUSTODY, AccountKind.STAKED)
    for (account, asset_id), atoms in balances.balances_of_kinds(engine, kinds).items():
        is_staked = kind_of(account) == AccountKind.STAKED
        chain_id = owner_of(account) if is_staked else owner_of(account) >> CUSTODY_WALLET_BITS
        before = found.get((chain_id, asset_id), InLedger(0, 0))
        more = InLedger(0, atoms) if is_staked else InLedger(atoms, 0)
        found[chain_id, asset_id] = InLedger(before.wallets + more.wallets, before.staked + more.staked)
    return found


def _chain_name(state: State, chain_id: int) -> str:
    return state.chains[chain_id].name if chain_id in state.chains else f"chain/{chain_id}"


def _symbol(state: State, asset_id: int) -> str:
    return state.assets[asset_id].symbol if asset_id in state.assets else f"asset/{asset_id}"


def _atoms(state: State, asset_id: int, atoms: int) -> str:
    return format_decimal(atoms, state.assets[asset_id].decimals) if asset_id in state.assets else str(atoms)


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


def _row(state: State, kept: Kept, result: Reconciliation, line: Any) -> dict[str, Any]:
    token = state.tokens[(result.chain_id, line.asset_id)]
    coins = kept.get((result.chain_id, line.asset_id))
    staked = coins.staked if coins is not None and line.wallet == HOT_WALLET and line.difference else 0

    def text(base: int) -> str:
        return format_decimal(base, token.chain_decimals)

    return {
        "chain": state.chains[result.chain_id].name,
        "wallet": "hot" if line.wallet == HOT_WALLET else f"deposit/{line.wallet}",
        "address": line.address,
        "asset": line.symbol,
        "ledger": text(line.ledger_base),
        "explained": text(sum(line.explained.values())),
        "reasons": {name: text(base) for name, base in sorted(line.explained.items())},
        "onChain": text(line.chain_base),
        "difference": text(line.difference),
        "doubts": list(line.doubts),
        "notes": [f"{_atoms(state, line.asset_id, staked)} {line.symbol} are booked as staked"] if staked else [],
    }
