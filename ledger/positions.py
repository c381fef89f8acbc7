"""What became of a subaccount's perpetual positions in a period, market by market, from the journal.   [A-12, S-10]

A settlement tick moves one sum of USDC for all markets together; its marks are in its memo. With the lots and the cost
that the subaccount's own lines show, what each market gave or took at each tick follows, exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from ledger import schema
from ledger.balances import PERPETUAL_SUFFIX, StatementLine, account_balances, last_journal, statement
from ledger.chart import AssetId, available, contracts, cost, is_of_market, market_of, position
from ledger.database import reading
from ledger.journal import JournalKind, decode_memo


class PositionPeriod(NamedTuple):
    """One market's part of a statement: base atoms, long above zero, and quote atoms, gained above zero.   [C-5, S-10]

    opening cost + traded + funding + shared + marked = settled + closing cost.
    """

    market_id: int
    opening: int
    bought: int
    """Of fills, and of what passed to or from somebody else in a liquidation."""
    sold: int
    closing: int
    traded: int
    """What fills gained over the mark last settled at their time."""
    funding: int
    shared: int
    """Losses of others that its side was charged.   [L-6]"""
    marked: int
    """Σ lots × (mark − mark before) over the ticks."""
    settled: int
    """What ticks made cash, claims or unsettled equity of.   [S-10, S-13, V-1]"""
    cost: int
    """Not settled yet, without what the mark has moved since."""
    mark: int
    """The last settled mark, in quote atoms per lot; 0 before the first in the period."""
    fees: int = 0
    """Of fills, and of steps of a liquidation: settled − fees is what the position brought.   [F-1, L-3]"""


POSITION_QUANTITIES = ("opening", "bought", "sold", "closing")
POSITION_AMOUNTS = ("traded", "funding", "shared", "marked", "settled", "cost", "fees")
"""Fields of a period that are in atoms of the base, and of the quote."""


def position_periods(
    engine: sa.Engine, subaccount_id: int, from_block: int = 0, to_block: int | None = None
) -> list[PositionPeriod]:
    """Every market in which the subaccount had a position in blocks `from_block` … `to_block`, by id.   [A-12]"""
    account = position(subaccount_id)
    before = account_balances(engine, account, from_block - 1) if from_block > 0 else {}
    lines = list(statement(engine, [account], from_block, to_block))
    found = {
        market_id: _Running(market_id, -before.get(contracts(market_id), 0), -before.get(cost(market_id), 0), lot)
        for market_id, lot in _lots(engine, {market_of(asset) for asset in (*before, *(line.asset for line in lines))})
    }
    waiting = deque(lines)
    for seq, marks in _ticks(engine, from_block, to_block) if found else ():
        while waiting and waiting[0].journal_seq < seq:
            _move(found, waiting.popleft())
        for market_id, mark_before, mark in marks:
            if market_id in found:
                found[market_id].settle(mark_before, mark)
    for line in waiting:
        _move(found, line)
    for market_id, fee in _fees(engine, subaccount_id, from_block, to_block) if found else ():
        if market_id in found:
            found[market_id].fees += fee
    return [each.period() for each in found.values()]


class _Running:
    """One market while the journal is read."""

    def __init__(self, market_id: int, quantity: int, gained: int, lot_atoms: int) -> None:
        self.market_id = market_id
        self.lot_atoms = lot_atoms
        self.opening = self.quantity = quantity
        self.cost = gained
        self.mark = self.bought = self.sold = self.marked = self.settled = self.fees = 0
        self.by_kind: dict[int, int] = {}

    def move(self, kind: int, asset: AssetId, atoms: int) -> None:
        """A posting on the position, as the customer reads it."""
        if asset == contracts(self.market_id):
            self.quantity += atoms
            self.bought += max(atoms, 0)
            self.sold += max(-atoms, 0)
            return
        self.cost += atoms
        if kind == JournalKind.SETTLEMENT:
            self.settled -= atoms
        else:
            self.by_kind[kind] = self.by_kind.get(kind, 0) + atoms

    def settle(self, mark_before: int, mark: int) -> None:
        """A tick's marks; the cost that it realizes is a posting of its own."""
        gained = self.quantity // self.lot_atoms * (mark - mark_before)
        self.marked += gained
        self.settled += gained
        self.mark = mark

    def period(self) -> PositionPeriod:
        funding, shared = (self.by_kind.pop(kind, 0) for kind in (JournalKind.FUNDING, JournalKind.LOSS_SHARED))
        return PositionPeriod(
            self.market_id,
            self.opening,
            self.bought,
            self.sold,
            self.quantity,
            sum(self.by_kind.values()),
            funding,
            shared,
            self.marked,
            self.settled,
            self.cost,
            self.mark,
            self.fees,
        )


def _move(found: dict[int, _Running], line: StatementLine) -> None:
    if market_of(line.asset) in found:
        found[market_of(line.asset)].move(line.kind, line.asset, -line.atoms)


def _lots(engine: sa.Engine, market_ids: set[int]) -> list[tuple[int, int]]:
    """(market, base atoms of a lot) of these perpetuals, by id."""
    table = schema.journal
    query = sa.select(table.c.memo).where(table.c.kind == JournalKind.MARKET_CONFIGURED)
    with reading(engine) as connection:
        memos = [decode_memo(bytes(memo)) for (memo,) in connection.execute(query)]
    lots = {memo[0]: memo[4] for memo in memos if str(memo[1]).endswith(PERPETUAL_SUFFIX)}
    return sorted((market_id, lots[market_id]) for market_id in market_ids if market_id in lots)


def _ticks(engine: sa.Engine, from_block: int, to_block: int | None) -> Iterator[tuple[int, Any]]:
    """(journal transaction, ((market, mark before, mark), …)) of each settlement of the period."""
    table = schema.journal
    with reading(engine) as connection:
        before = last_journal(connection, from_block - 1) if from_block > 0 else 0
        last = last_journal(connection, to_block)
        query = sa.select(table.c.seq, table.c.memo).where(
            table.c.kind == JournalKind.SETTLEMENT, table.c.seq > before, table.c.seq <= last
        )
        for seq, memo in connection.execution_options(stream_results=True).execute(query.order_by(table.c.seq)):
            yield seq, decode_memo(bytes(memo))[1]


def _fees(engine: sa.Engine, subaccount_id: int, from_block: int, to_block: int | None) -> Iterator[tuple[int, int]]:
    """(market, quote atoms) of each fee that the subaccount paid in the period: of fills on either side, from their
    memos, and of its own liquidation steps.   [F-1, L-3]
    """
    log, legs = schema.journal, schema.posting
    paid = sa.select(legs.c.journal_seq).where(legs.c.account == available(subaccount_id))
    fills = (JournalKind.PERPETUAL_TRADE, JournalKind.RFQ_TRADE)
    with reading(engine) as connection:
        before = last_journal(connection, from_block - 1) if from_block > 0 else 0
        last = last_journal(connection, to_block)
        query = sa.select(log.c.kind, log.c.memo).where(log.c.kind.in_((*fills, JournalKind.LIQUIDATION_FEE)))
        query = query.where(log.c.seq > before, log.c.seq <= last, log.c.seq.in_(paid))
        for kind, packed in connection.execution_options(stream_results=True).execute(query):
            memo = decode_memo(bytes(packed))
            if kind in fills:
                yield memo[0], sum(memo[fee] for who, fee in ((6, 10), (7, 12)) if memo[who] == subaccount_id)
            elif is_of_market(memo[1]):
                yield market_of(memo[1]), memo[4]
