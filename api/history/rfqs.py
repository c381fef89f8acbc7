"""Requests for quotes, quotes and their fills: looked up.   [S-7, W-3]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from api.history import schema
from api.history.following import History
from api.history.pages import in_markets, read_page
from api.rows import Page, RfqFillRow
from engine.commands import Side
from engine.events import OrderStatus, QuoteView, RfqChanged, RfqView

_decode_rfq = msgspec.json.Decoder(RfqView).decode
_decode_quote = msgspec.json.Decoder(QuoteView).decode
_decode_change = msgspec.json.Decoder(RfqChanged).decode


async def read_rfqs(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    rfq_id: int | None = None,
    market_ids: Sequence[int] | None = None,
    status: OrderStatus | None = None,
    side: Side | None = None,
) -> tuple[list[RfqView], int]:
    """A subaccount's requests as they last stood, by id; with the number of all that match."""
    table = schema.rfq
    wanted = [table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids)]
    wanted += _equal((table.c.rfq_id, rfq_id), (table.c.status, status), (table.c.side, side))
    return await read_page(history, table, wanted, (table.c.rfq_id,), page, lambda row: _decode_rfq(row.view))


async def read_quotes(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    quote_id: int | None = None,
    market_ids: Sequence[int] | None = None,
    status: OrderStatus | None = None,
) -> tuple[list[tuple[QuoteView, int]], int]:
    """A maker's quotes as they last stood, each with its market; with the number of all that match."""
    table = schema.quote
    wanted = [table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids)]
    wanted += _equal((table.c.quote_id, quote_id), (table.c.status, status))

    def read(row: Any) -> tuple[QuoteView, int]:
        return _decode_quote(row.view), row.market_id

    return await read_page(history, table, wanted, (table.c.quote_id,), page, read)


async def read_rfq_fills(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    as_maker: bool,
    quote_id: int | None = None,
    market_ids: Sequence[int] | None = None,
    side: Side | None = None,
) -> tuple[list[RfqFillRow], int]:
    """Fills of a subaccount's requests, or of its quotes, by quote id; with the number of all that match."""
    table = schema.rfq_fill
    owner = table.c.quoter_id if as_maker else table.c.subaccount_id
    wanted = [owner == subaccount_id, *in_markets(table, market_ids)]
    wanted += _equal((table.c.quote_id, quote_id), (table.c.side, side))

    def read(row: Any) -> RfqFillRow:
        return RfqFillRow(_decode_change(row.filled), row.at_us)

    return await read_page(history, table, wanted, (table.c.quote_id,), page, read)


def _equal(*pairs: tuple[sa.Column[Any], int | None]) -> list[sa.ColumnElement[bool]]:
    """What is asked for; what is None is not."""
    return [column == int(value) for column, value in pairs if value is not None]
