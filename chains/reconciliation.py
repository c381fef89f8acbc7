"""Reconciliation: per custody address and asset, ledger + explained = chain at one final block.   [D-11]

What explains a difference is counted, not guessed: transfers seen and not booked yet, booked above the block, dust,
fee rounding, and our own transactions that are mined and not settled. Works from a stopped node's data: it needs the
database, a node, and the ledger's custody balances.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chains import deposits as deposit
from chains.adapter import Adapter, BlockRef, Inclusion, Unavailable, WrongChain
from chains.deposits import State
from chains.exchange import Exchange, Token
from chains.outbox import Outcome, Sending, outcome_of
from chains.schema import addresses, attempts, blocks, cursors, deposits, dust, nonces, reconciliations, rounding
from chains.watcher import INCLUDED_AGAIN

LedgerBalance = Callable[[int, int, int], int]
"""(chain id, wallet, asset id) → atoms in the ledger's custody account."""

Explained = dict[tuple[int, int], dict[str, int]]
"""(wallet, asset id) → what → base units the chain has beyond the ledger for that reason."""


@dataclass(frozen=True, slots=True)
class Line:
    """One custody address and asset at a block, in base units. `since_us` is when a break was first seen."""

    wallet: int
    address: str
    asset_id: int
    symbol: str
    ledger_base: int
    explained: Mapping[str, int]
    chain_base: int
    since_us: int | None

    @property
    def difference(self) -> int:
        """What the chain has beyond the ledger and everything explained; anything but 0 is a break."""
        return self.chain_base - self.ledger_base - sum(self.explained.values())


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Every line of a chain at one block."""

    chain_id: int
    block: BlockRef
    at_us: int
    lines: Sequence[Line]

    @property
    def breaks(self) -> list[Line]:
        return [line for line in self.lines if line.difference != 0]


async def reconcile(
    engine: sa.Engine,
    node: Adapter,
    tokens: Sequence[Token],
    ledger_balance: LedgerBalance,
    *,
    now_us: int,
    record: bool = True,
    tries: int = 3,
) -> Reconciliation:
    """Compare the ledger with the chain. A break must show in `tries` comparisons running: on a live node a block
    may be booked between two reads. `record` writes the lines; without it nothing is written.   [D-11]
    """
    for last in range(tries - 1, -1, -1):
        result = await _compare(engine, node, tokens, ledger_balance, now_us)
        if not result.breaks or last == 0:
            break
        await asyncio.sleep(0.05)
    if record:
        await asyncio.to_thread(_record, engine, result)
    return result


async def stop_on_breaks(exchange: Exchange, result: Reconciliation, threshold_atoms: Mapping[int, int]) -> list[int]:
    """Stop withdrawals of each asset whose breaks add up to more than its threshold (0 when none is named).   [D-11]"""
    stopped = []
    for token in exchange.tokens(result.chain_id):
        base = sum(abs(line.difference) for line in result.breaks if line.asset_id == token.asset_id)
        limit = threshold_atoms.get(token.asset_id, 0) * token.base_per_atom
        if base > limit and not exchange.asset_withdrawals_stopped(token.asset_id):
            reason = f"chain {result.chain_id} block {result.block.height}: {token.symbol} is off by {base}, more"\
                     f" than {limit} base units"
            await exchange.stop_withdrawals(token.asset_id, reason)
            stopped.append(token.asset_id)
    return stopped


# ---- comparing ----


async def _compare(
    engine: sa.Engine, node: Adapter, tokens: Sequence[Token], ledger_balance: LedgerBalance, now_us: int
) -> Reconciliation:
    chain_id = node.chain_id
    block = await _common_block(engine, node)
    stored = await asyncio.to_thread(_read, engine, chain_id, block.height)
    moves = await _own_moves(node, stored, block)
    explained = _explain(stored, moves, block, tokens)
    by_asset = {token.asset_id: token for token in tokens}

    lines = []
    for wallet, address in sorted(stored.addresses.items()):
        for asset_id, token in sorted(by_asset.items()):
            ledger_base = ledger_balance(chain_id, wallet, asset_id) * token.base_per_atom
            reasons = {name: base for name, base in explained[wallet, asset_id].items() if base}
            if wallet and not ledger_base and (wallet, asset_id) not in stored.touched:
                continue
            chain_base = await node.balance(address, token.contract, block)
            line = Line(wallet, address, asset_id, token.symbol, ledger_base, reasons, chain_base, None)
            since = stored.since.get((wallet, asset_id)) or now_us
            lines.append(line if line.difference == 0 else _with_age(line, since))
    return Reconciliation(chain_id, block, now_us, lines)


async def _common_block(engine: sa.Engine, node: Adapter) -> BlockRef:
    """The newest block that is final for the node and scanned by the watcher, the same for both."""
    cursor, hashes = await asyncio.to_thread(_cursor, engine, node.chain_id)
    identity = await node.identity()
    if cursor is None or (cursor.network, cursor.genesis_hash) != (identity.network, identity.genesis_hash):
        raise WrongChain(f"chain {node.chain_id}: the node is on {identity.network}, this database follows"
                         f" {'nothing yet' if cursor is None else cursor.network}")
    height = min((await node.final()).height, cursor.height)
    block = await node.block(height)
    if block is None or hashes.get(height, block.hash) != block.hash:
        raise Unavailable(f"block {height}: the node and the watcher do not have the same")
    return block


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database knows of a chain, read in one transaction."""

    addresses: dict[int, str]
    deposits: Sequence[sa.Row[Any]]
    nonces: Sequence[sa.Row[Any]]
    attempts: dict[tuple[int, int], list[sa.Row[Any]]]
    dust: Sequence[sa.Row[Any]]
    rounding: Sequence[sa.Row[Any]]
    since: dict[tuple[int, int], int | None]
    touched: set[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Move:
    """One of our own transactions that the chain at the block and the ledger see differently; sign +1: chain ahead."""

    row: sa.Row[Any]
    sign: int
    outcome: str
    fee: int


async def _own_moves(node: Adapter, stored: _Stored, block: BlockRef) -> list[_Move]:
    moves = []
    for row in stored.nonces:
        if row.state == Sending.SETTLED:
            if row.height > block.height:
                moves.append(_Move(row, -1, row.outcome, int(row.fee)))
            continue
        found = await _winner(node, stored.attempts.get((row.wallet, row.nonce), []))
        if found is not None and found[1].block.height <= block.height:
            moves.append(_Move(row, 1, outcome_of(row, found[0].cancels, found[1]), found[1].fee))
    return moves


async def _winner(node: Adapter, tried: Sequence[sa.Row[Any]]) -> tuple[sa.Row[Any], Inclusion] | None:
    for attempt in tried:
        status = await node.status(attempt.tx_id)
        if status.mined is not None:
            return attempt, status.mined
    return None


def _explain(stored: _Stored, moves: Sequence[_Move], block: BlockRef, tokens: Sequence[Token]) -> Explained:
    explained: Explained = defaultdict(lambda: defaultdict(int))
    native = next((token.asset_id for token in tokens if token.contract == ""), None)
    for row in stored.deposits:
        for reason, base in _deposit_reasons(row, block.height):
            explained[row.wallet, row.asset_id][reason] += base
    for row in stored.dust:
        explained[row.subaccount_id, row.asset_id]["dust"] += int(row.base)
    for row in stored.rounding:
        explained[row.wallet, row.asset_id]["fee rounding"] += int(row.base)
    for move in moves:
        reason = "our own transaction, not booked yet" if move.sign > 0 else "our own transaction, above the block"
        if native is not None:
            explained[move.row.wallet, native][reason] -= move.sign * move.fee
        if move.outcome == Outcome.PAID and move.row.amount != "0":
            explained[move.row.wallet, move.row.asset_id][reason] -= move.sign * int(move.row.amount)
            if move.row.recipient_wallet is not None:
                explained[move.row.recipient_wallet, move.row.asset_id][reason] += move.sign * int(move.row.amount)
    return explained


def _deposit_reasons(row: sa.Row[Any], height: int) -> Iterator[tuple[str, int]]:
    """How a deposit row makes the chain at a block differ from the ledger."""
    received, below = int(row.received), row.height <= height
    if row.state in deposit.UNDECIDED and below:
        yield "seen, not booked yet", received
    elif row.state in deposit.PARKED and below:
        yield row.state, received
    elif row.state in deposit.BOOKED and not below:
        yield "booked above the block", -received
    elif row.state == State.CREDITED_ORPHANED and not (row.reason == INCLUDED_AGAIN and below):
        yield "credited, its block is gone", -received


# ---- reading and writing ----


def _cursor(engine: sa.Engine, chain_id: int) -> tuple[sa.Row[Any] | None, dict[int, str]]:
    with engine.begin() as connection:
        cursor = connection.execute(sa.select(cursors).filter_by(chain_id=chain_id)).first()
        kept = connection.execute(sa.select(blocks.c.height, blocks.c.hash).filter_by(chain_id=chain_id))
        return cursor, {row.height: row.hash for row in kept}


def _read(engine: sa.Engine, chain_id: int, height: int) -> _Stored:
    """What can make ledger and chain differ at a height; what is booked and below it cannot, and is not read."""
    open_deposits = sa.or_(deposits.c.state.not_in(deposit.BOOKED), deposits.c.height > height)
    open_nonces = sa.or_(nonces.c.state != Sending.SETTLED, nonces.c.height > height)
    with engine.begin() as connection:
        owners = connection.execute(sa.select(addresses).filter_by(chain_id=chain_id)).all()
        found = connection.execute(
            sa.select(deposits).filter_by(chain_id=chain_id).where(open_deposits, deposits.c.asset_id.is_not(None))
        ).all()
        moves = connection.execute(sa.select(nonces).filter_by(chain_id=chain_id).where(open_nonces)).all()
        tried: dict[tuple[int, int], list[sa.Row[Any]]] = {
            (row.wallet, row.nonce): list(
                connection.execute(
                    sa.select(attempts).filter_by(chain_id=chain_id, wallet=row.wallet, nonce=row.nonce)
                )
            )
            for row in moves
        }
        dusts = connection.execute(sa.select(dust).filter_by(chain_id=chain_id)).all()
        roundings = connection.execute(sa.select(rounding).filter_by(chain_id=chain_id)).all()
        newest = (
            sa.select(sa.func.max(reconciliations.c.id))
            .filter_by(chain_id=chain_id)
            .group_by(reconciliations.c.wallet, reconciliations.c.asset_id)
        )
        last = connection.execute(sa.select(reconciliations).where(reconciliations.c.id.in_(newest))).all()
        pairs = sa.union(
            sa.select(deposits.c.wallet, deposits.c.asset_id).filter_by(chain_id=chain_id),
            sa.select(rounding.c.wallet, rounding.c.asset_id).filter_by(chain_id=chain_id),
        )
        touched = {(row.wallet, row.asset_id) for row in connection.execute(pairs)}
    return _Stored(
        {row.wallet: row.address for row in owners},
        found,
        moves,
        tried,
        dusts,
        roundings,
        {(row.wallet, row.asset_id): row.since_us for row in last},
        touched,
    )


def _record(engine: sa.Engine, result: Reconciliation) -> None:
    with engine.begin() as connection:
        for line in result.lines:
            connection.execute(
                sa.insert(reconciliations).values(
                    chain_id=result.chain_id, at_us=result.at_us, height=result.block.height,
                    block_hash=result.block.hash, wallet=line.wallet, asset_id=line.asset_id,
                    ledger_base=str(line.ledger_base), explained_base=str(sum(line.explained.values())),
                    chain_base=str(line.chain_base), difference_base=str(line.difference), since_us=line.since_us,
                )
            )  # fmt: skip


def _with_age(line: Line, since_us: int) -> Line:
    return Line(
        line.wallet, line.address, line.asset_id, line.symbol, line.ledger_base, line.explained, line.chain_base,
        since_us,
    )  # fmt: skip
