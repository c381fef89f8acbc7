"""What the streams' messages say, with the contract's letters and a market's own decimals.   [W-6]

`E` is when the block was durable, in µs of exchange time: `published_us` here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from api.codec import TRIGGER_NAMES
from api.market_data import Change, PublicTrade
from api.positions import Figures
from api.rows import KlineRow, TickerRow
from engine.commands import OrderType, Origin, SelfTrade, Side
from engine.events import (
    BalanceChanged,
    ExpiryReason,
    OrderStatus,
    OrderTerms,
    OrderView,
    PositionView,
    RfqChanged,
    Trade,
)
from engine.parameters import PRICE_SCALE, AssetParameters, MarketParameters
from engine.state import State
from ledger.amounts import format_decimal

_SIDES = {Side.BID: "Bid", Side.ASK: "Ask"}
_ORDER_TYPES = {OrderType.LIMIT: "LIMIT", OrderType.MARKET: "MARKET"}
_SELF_TRADE = {
    SelfTrade.REJECT_TAKER: "RejectTaker",
    SelfTrade.REJECT_MAKER: "RejectMaker",
    SelfTrade.REJECT_BOTH: "RejectBoth",
}
_PRICE_DECIMALS = len(str(PRICE_SCALE)) - 1
_RATE_DECIMALS, _LINE_DECIMALS, _USD_DECIMALS = 9, 15, 8
ORIGINS = {
    Origin.USER: "USER",
    Origin.LIQUIDATION: "LIQUIDATION_AUTOCLOSE",
    Origin.ADL: "ADL_AUTOCLOSE",
    Origin.COLLATERAL_CONVERSION: "COLLATERAL_CONVERSION",
    Origin.SETTLEMENT: "SETTLEMENT_AUTOCLOSE",
    Origin.BACKSTOP: "BACKSTOP_LIQUIDITY_PROVIDER",
}
_STATUS = {
    OrderStatus.NEW: "New",
    OrderStatus.PARTIALLY_FILLED: "PartiallyFilled",
    OrderStatus.FILLED: "Filled",
    OrderStatus.CANCELLED: "Cancelled",
    OrderStatus.EXPIRED: "Expired",
    OrderStatus.TRIGGER_PENDING: "TriggerPending",
    OrderStatus.TRIGGER_FAILED: "TriggerFailed",
}


class MarketText(NamedTuple):
    """How a market's numbers are written on the streams: padded to its tick and step.   [W-6]"""

    parameters: MarketParameters
    price_decimals: int
    tick_units: int
    lot_decimals: int
    lot_units: int
    quote_decimals: int
    quote_unit_atoms: int

    @property
    def symbol(self) -> str:
        return self.parameters.symbol

    def price(self, ticks: int) -> str:
        return padded(ticks * self.tick_units, self.price_decimals)

    def quantity(self, lots: int) -> str:
        return padded(lots * self.lot_units, self.lot_decimals)

    def quote(self, atoms: int) -> str:
        """Quote atoms, padded to price and step together; exact, since tick × step is a whole number of atoms."""
        units, rest = divmod(atoms, self.quote_unit_atoms)
        if rest:
            return format_decimal(atoms, self.quote_decimals + len(str(self.quote_unit_atoms)) - 1)
        return padded(units, self.quote_decimals)


def market_text(state: State, parameters: MarketParameters) -> MarketText:
    """How this market's numbers are written."""
    base = state.assets[parameters.base_asset_id]
    quote = state.assets[parameters.quote_asset_id]
    tick_units, price_decimals = _shortest(parameters.tick_price, _PRICE_DECIMALS)
    lot_units, lot_decimals = _shortest(parameters.lot_atoms, base.decimals)
    quote_decimals = min(price_decimals + lot_decimals, quote.decimals)
    quote_unit_atoms = 10 ** (quote.decimals - quote_decimals)
    return MarketText(
        parameters, price_decimals, tick_units, lot_decimals, lot_units, quote_decimals, quote_unit_atoms
    )


def trade_message(trade: PublicTrade, text: MarketText, published_us: int) -> dict[str, Any]:
    row = trade.row
    return {
        "e": "trade",
        "E": published_us,
        "s": text.symbol,
        "p": text.price(row.price_ticks),
        "q": text.quantity(row.lots),
        "b": str(trade.bid_order_id),
        "a": str(trade.ask_order_id),
        "t": row.trade_id,
        "T": row.at_us,
        "m": row.is_buyer_maker,
    }


class LevelChanges(Protocol):
    """What happened to a book: in one block, or since a slower stream was sent last. Ticks → lots, 0: gone."""

    first_id: int
    last_id: int
    at_us: int
    bids: dict[int, int]
    asks: dict[int, int]


def depth_message(change: LevelChanges, text: MarketText, published_us: int) -> dict[str, Any]:
    """Absolute sizes by price, best first on neither side promised; "0" takes a level away.   [W-6]"""
    price, quantity = text.price, text.quantity
    return {
        "e": "depth",
        "E": published_us,
        "s": text.symbol,
        "a": [(price(ticks), quantity(lots)) for ticks, lots in sorted(change.asks.items())],
        "b": [(price(ticks), quantity(lots)) for ticks, lots in sorted(change.bids.items())],
        "U": change.first_id,
        "u": change.last_id,
        "T": change.at_us,
    }


def book_ticker_message(
    bid: tuple[int, int] | None,
    ask: tuple[int, int] | None,
    change: Change,
    text: MarketText,
    published_us: int,
) -> dict[str, Any]:
    """The best (price_ticks, lots) of both sides; null for a side that is empty."""
    return {
        "e": "bookTicker",
        "E": published_us,
        "s": text.symbol,
        "a": text.price(ask[0]) if ask is not None else None,
        "A": text.quantity(ask[1]) if ask is not None else None,
        "b": text.price(bid[0]) if bid is not None else None,
        "B": text.quantity(bid[1]) if bid is not None else None,
        "u": change.last_id,
        "T": change.at_us,
    }


def ticker_message(row: TickerRow, text: MarketText, published_us: int) -> dict[str, Any]:
    return {
        "e": "ticker",
        "E": published_us,
        "s": text.symbol,
        "o": text.price(row.first_price_ticks),
        "c": text.price(row.last_price_ticks),
        "h": text.price(row.high_price_ticks),
        "l": text.price(row.low_price_ticks),
        "v": text.quantity(row.lots),
        "V": text.quote(row.quote_atoms),
        "n": row.trades,
    }


def kline_message(row: KlineRow, text: MarketText, published_us: int, *, closed: bool) -> dict[str, Any]:
    assert row.open_price_ticks is not None and row.close_price_ticks is not None
    assert row.high_price_ticks is not None and row.low_price_ticks is not None
    return {
        "e": "kline",
        "E": published_us,
        "s": text.symbol,
        "t": _iso(row.start_s),
        "T": _iso(row.end_s),
        "o": text.price(row.open_price_ticks),
        "c": text.price(row.close_price_ticks),
        "h": text.price(row.high_price_ticks),
        "l": text.price(row.low_price_ticks),
        "v": text.quantity(row.lots),
        "n": row.trades,
        "X": closed,
    }


class MarkLine(NamedTuple):
    """Mark and index of a market at a command, in PRICE_SCALE; a perpetual's funding beside them.   [P-2, P-22]"""

    symbol: str
    mark: int
    index_price: int
    rate: int | None = None
    """What the running interval would be charged at, in 1e-9; None of a spot market."""
    next_funding_us: int = 0


def mark_price_message(line: MarkLine, at_us: int, published_us: int) -> dict[str, Any]:
    """Prices in USD, exact; `f` and `n` (in ms) are left out where there is no funding.   [W-6, P-2]"""
    message = {
        "e": "markPrice",
        "E": published_us,
        "s": line.symbol,
        "p": format_decimal(line.mark, _PRICE_DECIMALS),
        "i": format_decimal(line.index_price, _PRICE_DECIMALS),
        "T": at_us,
    }
    if line.rate is not None:
        message["f"] = format_decimal(line.rate, _RATE_DECIMALS)
        message["n"] = line.next_funding_us // 1_000
    return message


def open_interest_message(lots: int, text: MarketText, published_us: int) -> dict[str, Any]:
    return {"e": "openInterest", "E": published_us, "s": text.symbol, "o": text.quantity(lots)}


def liquidation_message(
    lots: int, ticks: int, side: Side, text: MarketText, published_us: int, at_us: int
) -> dict[str, Any]:
    """Something of an account in liquidation was closed, in the book or beside it; `S` is the side it took.   [L-3]"""
    return {
        "e": "liquidation",
        "E": published_us,
        "q": text.quantity(lots),
        "p": text.price(ticks),
        "S": _SIDES[side],
        "s": text.symbol,
        "T": at_us,
    }


def position_update(
    view: PositionView, found: Figures, mark: int, event: str | None, text: MarketText, published_us: int, at_us: int
) -> dict[str, Any]:
    """The letters of account.positionUpdate; what is open when somebody subscribes comes without `e`.   [W-6]"""
    data: dict[str, Any] = {} if event is None else {"e": event}
    return data | {
        "E": published_us,
        "s": text.symbol,
        "b": format_decimal(found.break_even_price, _PRICE_DECIMALS),
        "B": format_decimal(found.entry_price, _PRICE_DECIMALS),
        "f": format_decimal(found.imf, _LINE_DECIMALS),
        "M": format_decimal(mark, _PRICE_DECIMALS),
        "m": format_decimal(found.mmf, _LINE_DECIMALS),
        "q": text.quantity(view.lots),
        "Q": text.quantity(found.exposure),
        "n": format_decimal(found.notional, _USD_DECIMALS),
        "i": view.position_id,
        "l": "0",
        "p": text.quote(found.realized),
        "P": text.quote(found.unrealized),
        "T": at_us,
    }


def order_update(order: OrderView, event: str, text: MarketText, published_us: int, at_us: int) -> dict[str, Any]:
    """The letters of account.orderUpdate that every event has; letters without a value are left out.   [W-6]"""
    data: dict[str, Any] = {"e": event, "E": published_us, "s": text.symbol}
    if order.client_id is not None:
        data["c"] = order.client_id
    data["S"] = _SIDES[order.side]
    data["o"] = _ORDER_TYPES[order.order_type]
    data["f"] = order.time_in_force.name
    if order.lots:
        data["q"] = text.quantity(order.lots)
    if order.quote_atoms:
        data["Q"] = text.quote(order.quote_atoms)
    if order.order_type == OrderType.LIMIT:
        data["p"] = text.price(order.price_ticks)
        data["y"] = order.post_only
    data["X"] = _STATUS[order.status]
    if order.expiry_reason is not None:
        data["R"] = ExpiryReason(order.expiry_reason).name
    data["i"] = str(order.order_id)
    data["z"] = text.quantity(order.executed_lots)
    data["Z"] = text.quote(order.executed_quote_atoms)
    data["V"] = _SELF_TRADE[order.self_trade]
    data["T"] = at_us
    terms = order.terms
    data["O"] = ORIGINS[Origin.USER if terms is None else terms.origin]
    data["r"] = order.reduce_only
    return data if terms is None else data | _terms_letters(order, terms, text)


def _terms_letters(order: OrderView, terms: OrderTerms, text: MarketText) -> dict[str, Any]:
    """What only some orders have: trigger P, B, Y; take-profit a, j, d; stop-loss b, k, g; parent I, strategy H."""
    data: dict[str, Any] = {}
    if terms.trigger_by:
        data["P"] = text.price(terms.trigger_price_ticks)
        data["B"] = TRIGGER_NAMES[terms.trigger_by]
        percent = terms.trigger_percent
        data["Y"] = f"{format_decimal(percent, _RATE_DECIMALS - 2)}%" if percent else text.quantity(order.lots)
    for bracket, trigger, limit, by in ((terms.take_profit, "a", "j", "d"), (terms.stop_loss, "b", "k", "g")):
        if bracket is not None:
            data[trigger] = text.price(bracket.trigger_price_ticks)
            data[by] = TRIGGER_NAMES[bracket.trigger_by]
            if bracket.limit_price_ticks:
                data[limit] = text.price(bracket.limit_price_ticks)
    if terms.related_order_id:
        data["I"] = str(terms.related_order_id)
    if terms.strategy_id:
        data["H"] = str(terms.strategy_id)
    return data


def rfq_update(
    changed: RfqChanged, text: MarketText, published_us: int, at_us: int, subaccount_id: int
) -> dict[str, Any]:
    """The letters of account.rfqUpdate as this subaccount is told them: a client id is told to its owner alone.

    `p` is the request's limit, of a quote its price for the request's side, of a fill what was paid; `w`, `W`: from
    when to when it takes quotes, in ms.   [W-6]
    """
    rfq, quote = changed.rfq, changed.quote
    price, client_id, status = rfq.price_ticks, rfq.client_id, rfq.status
    if quote is not None:
        price = quote.ask_ticks if rfq.side == Side.BID else quote.bid_ticks
        if changed.change in ("quoteAccepted", "quoteCancelled"):
            client_id, status = quote.client_id, quote.status
    owner = rfq.subaccount_id if quote is None or changed.change.startswith("rfq") else quote.subaccount_id
    data: dict[str, Any] = {"e": changed.change, "E": published_us, "R": rfq.rfq_id}
    if quote is not None:
        data["u"] = quote.quote_id
    if client_id is not None and subaccount_id == owner:
        data["C"] = client_id
    data |= {"s": text.symbol, "S": _SIDES[rfq.side]}
    if rfq.lots:
        data["q"] = text.quantity(rfq.lots)
    if rfq.quote_atoms:
        data["Q"] = text.quote(rfq.quote_atoms)
    if price:
        data["p"] = text.price(price)
    data |= {"w": rfq.submitted_at_us // 1_000, "W": rfq.expires_at_us // 1_000, "X": _STATUS[status]}
    data |= {"o": "Immediate" if rfq.immediate else "AwaitAccept", "T": at_us}
    return data


def fill_letters(trade: Trade, text: MarketText, fee_asset: AssetParameters, *, maker: bool) -> dict[str, Any]:
    """What account.orderUpdate says beside the order when it was filled."""
    return {
        "t": trade.trade_id,
        "l": text.quantity(trade.lots),
        "L": text.price(trade.price_ticks),
        "m": maker,
        "n": format_decimal(trade.maker_fee_atoms if maker else trade.taker_fee_atoms, fee_asset.decimals),
        "N": fee_asset.symbol,
    }


def balance_update(change: BalanceChanged, asset: AssetParameters, published_us: int, at_us: int) -> dict[str, Any]:
    return {
        "e": "balanceUpdate",
        "E": published_us,
        "a": asset.symbol,
        "A": format_decimal(change.available_atoms, asset.decimals),
        "L": format_decimal(change.locked_atoms, asset.decimals),
        "S": "0",
        "T": at_us,
    }


def padded(units: int, decimals: int) -> str:
    """`units / 10^decimals` with exactly that many decimals: 866480, 1 → "86648.0".   [W-6]"""
    if not decimals:
        return str(units)
    if units < 0:
        return "-" + padded(-units, decimals)
    whole, fraction = divmod(units, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}"


def _shortest(value: int, decimals: int) -> tuple[int, int]:
    """`value / 10^decimals` in as few decimals as it needs: 10^10, 12 → (1, 2)."""
    while decimals and value % 10 == 0:
        value //= 10
        decimals -= 1
    return value, decimals


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
