"""Engine numbers as the wire says them: ticks, lots and atoms become exact decimal strings, µs become its many times.

Rounds nowhere but in a ticker's `priceChangePercent`, which is a display figure.   [W-3, A-3]
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
from msgspec import UNSET, UnsetType

from api import contract
from api.errors import ApiError, refusal_of
from api.rows import DepthView, FillRow, KlineRow, RfqFillRow, TickerRow, TradeRow
from engine import margin
from engine.commands import OrderType, Origin, SelfTrade, Side, SlippageKind, TimeInForce, TriggerBy
from engine.events import (
    DepositView,
    ExpiryReason,
    OrderRefused,
    OrderStatus,
    OrderTerms,
    OrderView,
    QuoteView,
    RfqView,
    StrategyView,
    WithdrawalView,
)
from engine.parameters import (
    PRICE_SCALE,
    AssetParameters,
    BookState,
    MarketParameters,
    MarketType,
    TokenParameters,
    WeightKind,
)
from engine.rejections import Rejection
from engine.state import Market, State, Subaccount
from ledger.amounts import format_decimal, mul_div_half_even

PRICE_DECIMALS = 12
RATE_DECIMALS = 9
USD_DECIMALS = 8
ANNUAL_DECIMALS = 18
LINE_DECIMALS = 15
"""Of the fractions that one exposure's margins are made with, exact.   [M-3]"""
BASIS_POINT_DECIMALS = 5
"""Rates in 1e-9 read as basis points: one is 1e5 of them."""

assert PRICE_SCALE == 10**PRICE_DECIMALS

encode = msgspec.json.Encoder().encode

_SIDE: dict[int, Any] = {Side.BID: "Bid", Side.ASK: "Ask"}
_TIME_IN_FORCE: dict[int, Any] = {TimeInForce.GTC: "GTC", TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}
_SELF_TRADE: dict[int, Any] = {
    SelfTrade.REJECT_TAKER: "RejectTaker",
    SelfTrade.REJECT_MAKER: "RejectMaker",
    SelfTrade.REJECT_BOTH: "RejectBoth",
}
_STATUS: dict[int, Any] = {
    OrderStatus.NEW: "New",
    OrderStatus.PARTIALLY_FILLED: "PartiallyFilled",
    OrderStatus.FILLED: "Filled",
    OrderStatus.CANCELLED: "Cancelled",
    OrderStatus.EXPIRED: "Expired",
    OrderStatus.TRIGGER_PENDING: "TriggerPending",
    OrderStatus.TRIGGER_FAILED: "TriggerFailed",
}
SIDES = {name: side for side, name in ((Side.BID, "Bid"), (Side.ASK, "Ask"))}
STATUSES: dict[str, OrderStatus] = {name: OrderStatus(status) for status, name in _STATUS.items()}
_BOOK_STATE: dict[int, Any] = {
    BookState.OPEN: "Open",
    BookState.POST_ONLY: "PostOnly",
    BookState.LIMIT_ONLY: "LimitOnly",
    BookState.CANCEL_ONLY: "CancelOnly",
    BookState.CLOSED: "Closed",
}
MARKET_TYPE_NAMES: dict[int, Any] = {MarketType.SPOT: "SPOT", MarketType.PERP: "PERP"}
_DEPOSIT_STATUS = {"provisional": "pending", "final": "confirmed", "orphaned": "pending", "reversed": "cancelled"}
_WITHDRAWAL_STATUS = {
    "requested": "pending",
    "approved": "pending",
    "settled": "confirmed",
    "released": "void",
    "rejected": "void",
}
"""`void` is on the live wire and in the Rust client, though not in the contract's list: the money is back."""


TRIGGER_NAMES: dict[int, Any] = {
    TriggerBy.LAST: "LastPrice",
    TriggerBy.MARK: "MarkPrice",
    TriggerBy.INDEX: "IndexPrice",
}
_STRATEGY_STATUS: dict[str, Any] = {name: name for name in ("Running", "Completed", "Cancelled", "Terminated")}
_REASONS: dict[str, Any] = {name: name for name in get_args(contract.StrategyReasonName)}
_SYSTEM_ORDERS: dict[int, Any] = {
    Origin.LIQUIDATION: "LiquidatePositionOnBook",
    Origin.ADL: "LiquidatePositionOnAdl",
    Origin.BACKSTOP: "LiquidatePositionOnBackstop",
    Origin.COLLATERAL_CONVERSION: "CollateralConversion",
}


class MarketCodec:
    """The numbers of one market; made once per listing, since tick, lot and assets never change."""

    __slots__ = ("base_decimals", "lot_atoms", "quote_decimals", "symbol", "tick_price")

    def __init__(self, state: State, parameters: MarketParameters) -> None:
        self.symbol = parameters.symbol
        self.tick_price = parameters.tick_price
        self.lot_atoms = parameters.lot_atoms
        self.base_decimals = state.assets[parameters.base_asset_id].decimals
        self.quote_decimals = state.assets[parameters.quote_asset_id].decimals

    def price(self, ticks: int) -> str:
        return format_decimal(ticks * self.tick_price, PRICE_DECIMALS)

    def quantity(self, lots: int) -> str:
        return format_decimal(lots * self.lot_atoms, self.base_decimals)

    def quote(self, atoms: int) -> str:
        return format_decimal(atoms, self.quote_decimals)


class Codec:
    """Speaks the wire for one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._markets: dict[int, MarketCodec] = {}

    def market(self, market_id: int) -> MarketCodec:
        codec = self._markets.get(market_id)
        if codec is None:
            codec = self._markets[market_id] = MarketCodec(self.state, self.state.markets[market_id].parameters)
        return codec

    def amount(self, asset_id: int, atoms: int) -> str:
        return format_decimal(atoms, self.state.assets[asset_id].decimals)

    def symbol(self, asset_id: int) -> str:
        return self.state.assets[asset_id].symbol

    # Orders.

    def order(self, view: OrderView) -> contract.LimitOrder | contract.MarketOrder:
        """An engine object: `createdAt` in ms."""
        order: contract.LimitOrder | contract.MarketOrder
        order = self._order(view, contract.LimitOrder, contract.MarketOrder, {})
        return order

    def batch_item(
        self, result: OrderView | OrderRefused | Rejection | ApiError
    ) -> contract.PlacedLimitOrder | contract.PlacedMarketOrder | contract.RefusedOrder:
        """One row of the answer to a batch, tagged by `operation`."""
        if not isinstance(result, OrderView):
            error = result if isinstance(result, ApiError) else refusal_of(result.reason, result.facts, self.state)
            return contract.RefusedOrder(error.code, error.message)
        placed: contract.PlacedLimitOrder | contract.PlacedMarketOrder
        placed = self._order(result, contract.PlacedLimitOrder, contract.PlacedMarketOrder, {"operation": "Ok"})
        return placed

    def _order(self, view: OrderView, limit_shape: Any, market_shape: Any, extra: dict[str, str]) -> Any:
        market = self.market(view.market_id)
        client_id: int | UnsetType = UNSET if view.client_id is None else view.client_id
        if view.order_type == OrderType.LIMIT:
            return limit_shape(
                id=str(view.order_id),
                created_at=view.created_at_us // 1000,
                executed_quantity=market.quantity(view.executed_lots),
                executed_quote_quantity=market.quote(view.executed_quote_atoms),
                post_only=view.post_only,
                price=market.price(view.price_ticks),
                quantity=market.quantity(view.lots),
                self_trade_prevention=_SELF_TRADE[view.self_trade],
                status=_STATUS[view.status],
                side=_SIDE[view.side],
                symbol=market.symbol,
                time_in_force=_TIME_IN_FORCE[view.time_in_force],
                client_id=client_id,
                reduce_only=view.reduce_only,
                **self._terms(view, market),
                **extra,
            )
        return market_shape(
            id=str(view.order_id),
            created_at=view.created_at_us // 1000,
            executed_quantity=market.quantity(view.executed_lots),
            executed_quote_quantity=market.quote(view.executed_quote_atoms),
            time_in_force=_TIME_IN_FORCE[view.time_in_force],
            self_trade_prevention=_SELF_TRADE[view.self_trade],
            side=_SIDE[view.side],
            status=_STATUS[view.status],
            symbol=market.symbol,
            client_id=client_id,
            quantity=market.quantity(view.lots) if view.lots else UNSET,
            quote_quantity=market.quote(view.quote_atoms) if view.quote_atoms else UNSET,
            reduce_only=view.reduce_only,
            **self._terms(view, market),
            **_slippage(view.terms),
            **extra,
        )

    def _terms(self, view: OrderView, market: MarketCodec) -> dict[str, Any]:
        """What only some orders have: what they wait or waited for, brackets, what they belong to.   [S-7, S-9]"""
        terms = view.terms
        if terms is None:
            return {}
        row = _conditions(view, terms, market)
        if terms.triggered_at_us:
            row["triggered_at"] = terms.triggered_at_us // 1000
        if terms.related_order_id:
            row["related_order_id"] = str(terms.related_order_id)
        if terms.strategy_id:
            row["strategy_id"] = str(terms.strategy_id)
        return row

    def history_order(self, view: OrderView) -> contract.Order:
        """A history row: `createdAt` naive ISO."""
        market = self.market(view.market_id)
        is_limit = view.order_type == OrderType.LIMIT
        closed = view.expiry_reason == ExpiryReason.ORDER_BOOK_CLOSED
        terms = view.terms
        return contract.Order(
            id=str(view.order_id),
            created_at=naive_iso(view.created_at_us),
            order_type="Limit" if is_limit else "Market",
            self_trade_prevention=_SELF_TRADE[view.self_trade],
            status=_STATUS[view.status],
            side=_SIDE[view.side],
            symbol=market.symbol,
            time_in_force=_TIME_IN_FORCE[view.time_in_force],
            client_id=UNSET if view.client_id is None else view.client_id,
            executed_quantity=market.quantity(view.executed_lots),
            executed_quote_quantity=market.quote(view.executed_quote_atoms),
            expiry_reason=UNSET if view.expiry_reason is None or closed else expiry_name(view.expiry_reason),
            post_only=view.post_only if is_limit else UNSET,
            price=market.price(view.price_ticks) if is_limit else UNSET,
            quantity=market.quantity(view.lots) if view.lots else UNSET,
            quote_quantity=market.quote(view.quote_atoms) if view.quote_atoms else UNSET,
            system_order_type="OrderBookClosed" if closed else system_order_type(view.terms),
            strategy_id=str(terms.strategy_id) if terms is not None and terms.strategy_id else UNSET,
            **({} if terms is None else _conditions(view, terms, market)),
            **_slippage(terms),
        )

    def fill(self, row: FillRow) -> contract.OrderFill:
        market = self.market(row.market_id)
        return contract.OrderFill(
            fee=self.amount(row.fee_asset_id, row.fee_atoms),
            fee_symbol=self.symbol(row.fee_asset_id),
            is_maker=row.is_maker,
            order_id=str(row.order_id),
            price=market.price(row.price_ticks),
            quantity=market.quantity(row.lots),
            side=_SIDE[row.side],
            symbol=market.symbol,
            timestamp=naive_iso(row.at_us),
            client_id=UNSET if row.client_id is None else str(row.client_id),
            trade_id=row.trade_id,
            system_order_type=_SYSTEM_ORDERS.get(row.origin, UNSET),
        )

    # Strategies and requests for quotes.

    def strategy(self, view: StrategyView) -> contract.ScheduledStrategy:
        """An engine object: `createdAt` in ms, as are duration and interval."""
        market = self.market(view.market_id)
        return contract.ScheduledStrategy(
            id=str(view.strategy_id),
            created_at=view.created_at_us // 1000,
            executed_quantity=market.quantity(view.executed_lots),
            executed_quote_quantity=market.quote(view.executed_quote_atoms),
            quantity=market.quantity(view.lots),
            self_trade_prevention=_SELF_TRADE[view.self_trade],
            status=_STRATEGY_STATUS[view.status],
            side=_SIDE[view.side],
            symbol=market.symbol,
            time_in_force=_TIME_IN_FORCE[view.time_in_force],
            duration=view.duration_ms,
            interval=view.interval_ms,
            client_strategy_id=UNSET if view.client_id is None else view.client_id,
            randomized_interval_quantity=view.randomized,
            reduce_only=view.reduce_only,
            **_slippage(view),
        )

    def history_strategy(self, view: StrategyView) -> contract.Strategy:
        market = self.market(view.market_id)
        return contract.Strategy(
            id=str(view.strategy_id),
            created_at=naive_iso(view.created_at_us),
            strategy_type="Scheduled",
            self_trade_prevention=_SELF_TRADE[view.self_trade],
            status=_STRATEGY_STATUS[view.status],
            side=_SIDE[view.side],
            symbol=market.symbol,
            time_in_force=_TIME_IN_FORCE[view.time_in_force],
            duration=view.duration_ms,
            interval=view.interval_ms,
            randomized_interval_quantity=view.randomized,
            cancel_reason=_REASONS[view.reason] if view.reason else UNSET,
            client_strategy_id=UNSET if view.client_id is None else view.client_id,
            executed_quantity=market.quantity(view.executed_lots),
            executed_quote_quantity=market.quote(view.executed_quote_atoms),
            quantity=market.quantity(view.lots),
            **_slippage(view),
        )

    def rfq(self, view: RfqView) -> contract.RequestForQuote:
        """An engine object: times in ms."""
        submitted_ms = view.submitted_at_us // 1000
        return contract.RequestForQuote(
            submission_time=submitted_ms,
            expiry_time=view.expires_at_us // 1000,
            created_at=submitted_ms,
            **self._rfq(view),
        )

    def history_rfq(self, view: RfqView) -> contract.RequestForQuoteHistorical:
        submitted = naive_iso(view.submitted_at_us)
        return contract.RequestForQuoteHistorical(
            submission_time=submitted,
            expiry_time=naive_iso(view.expires_at_us),
            created_at=submitted,
            **self._rfq(view),
        )

    def _rfq(self, view: RfqView) -> dict[str, Any]:
        market = self.market(view.market_id)
        return {
            "rfq_id": str(view.rfq_id),
            "symbol": market.symbol,
            "side": _SIDE[view.side],
            "status": _STATUS[view.status],
            "execution_mode": "Immediate" if view.immediate else "AwaitAccept",
            "client_id": UNSET if view.client_id is None else view.client_id,
            "price": market.price(view.price_ticks) if view.price_ticks else UNSET,
            "quantity": market.quantity(view.lots) if view.lots else UNSET,
            "quote_quantity": market.quote(view.quote_atoms) if view.quote_atoms else UNSET,
        }

    def quote(self, view: QuoteView, market_id: int) -> contract.Quote:
        """An engine object: `createdAt` in ms."""
        return contract.Quote(created_at=view.created_at_us // 1000, **self._quote(view, market_id))

    def history_quote(self, view: QuoteView, market_id: int) -> contract.QuoteHistorical:
        """Every fill settles at once: none is deferred."""
        return contract.QuoteHistorical(
            created_at=naive_iso(view.created_at_us), deferred_settlement=False, **self._quote(view, market_id)
        )

    def _quote(self, view: QuoteView, market_id: int) -> dict[str, Any]:
        market = self.market(market_id)
        return {
            "rfq_id": str(view.rfq_id),
            "quote_id": str(view.quote_id),
            "bid_price": market.price(view.bid_ticks),
            "ask_price": market.price(view.ask_ticks),
            "status": _STATUS[view.status],
            "client_id": UNSET if view.client_id is None else view.client_id,
        }

    def rfq_fill(self, row: RfqFillRow) -> contract.RequestForQuoteFillHistorical:
        """A fill as the requester sees it."""
        rfq, quote = row.filled.rfq, row.filled.quote
        assert quote is not None, f"request {rfq.rfq_id} was filled by nobody"
        market = self.market(rfq.market_id)
        return contract.RequestForQuoteFillHistorical(
            rfq_id=str(rfq.rfq_id),
            quote_id=str(quote.quote_id),
            symbol=market.symbol,
            side=_SIDE[rfq.side],
            fill_price=market.price(rfq.fill_price_ticks),
            created_at=naive_iso(rfq.submitted_at_us),
            filled_at=naive_iso(row.at_us),
            client_id=UNSET if rfq.client_id is None else rfq.client_id,
            quantity=market.quantity(rfq.filled_lots),
            quote_quantity=market.quote(row.filled.quote_atoms),
        )

    def quote_fill(self, row: RfqFillRow) -> contract.QuoteFillHistorical:
        """The same fill as its maker sees it: the other side, and the maker's fee."""
        rfq, quote = row.filled.rfq, row.filled.quote
        assert quote is not None, f"request {rfq.rfq_id} was filled by nobody"
        market, fee_asset = self.market(rfq.market_id), row.filled.quoter_fee_asset_id
        return contract.QuoteFillHistorical(
            quote_id=str(quote.quote_id),
            rfq_id=str(rfq.rfq_id),
            symbol=market.symbol,
            side=_SIDE[Side.ASK if rfq.side == Side.BID else Side.BID],
            quantity=market.quantity(rfq.filled_lots),
            fill_price=market.price(rfq.fill_price_ticks),
            fee=self.amount(fee_asset, row.filled.quoter_fee_atoms),
            fee_symbol=self.symbol(fee_asset),
            created_at=naive_iso(quote.created_at_us),
            filled_at=naive_iso(row.at_us),
            client_id=UNSET if quote.client_id is None else quote.client_id,
        )

    # Markets.

    def market_row(self, market: Market) -> contract.Market:
        parameters = market.parameters
        numbers = self.market(parameters.market_id)
        perpetual = parameters.perpetual
        row = contract.Market(
            symbol=parameters.symbol,
            base_symbol=self.symbol(parameters.base_asset_id),
            quote_symbol=self.symbol(parameters.quote_asset_id),
            market_type=MARKET_TYPE_NAMES[parameters.type],
            filters=contract.OrderBookFilters(
                self._price_filter(parameters),
                contract.QuantityFilter(
                    min_quantity=numbers.quantity(parameters.min_lots),
                    step_size=numbers.quantity(1),
                    max_quantity=numbers.quantity(parameters.max_lots) if parameters.max_lots else UNSET,
                ),
            ),
            order_book_state=_BOOK_STATE[parameters.state],
            created_at=naive_iso(market.listed_at_us),
            visible=True,
        )
        if perpetual is not None:
            row.imf_function = sqrt_function(perpetual.imf_base, perpetual.imf_factor)
            row.mmf_function = sqrt_function(perpetual.mmf_base, perpetual.mmf_factor)
            row.funding_interval = perpetual.funding_interval_ms
            row.funding_rate_upper_bound = str(perpetual.funding_upper_bps)
            row.funding_rate_lower_bound = str(perpetual.funding_lower_bps)
            row.open_interest_limit = numbers.quantity(perpetual.open_interest_limit_lots)
        return row

    def _price_filter(self, parameters: MarketParameters) -> contract.PriceFilter:
        tick = self.market(parameters.market_id).price(1)
        bands = parameters.bands
        row = contract.PriceFilter(
            min_price=tick,
            tick_size=tick,
            max_multiplier=rate(bands.limit_max),
            min_multiplier=rate(bands.limit_min),
            max_impact_multiplier=rate(bands.impact_max),
            min_impact_multiplier=rate(bands.impact_min),
        )
        if parameters.type == MarketType.PERP:
            row.mean_mark_price_band = contract.PriceBandMarkPrice(
                rate(bands.mean_mark_max), rate(bands.mean_mark_min)
            )
            row.mean_premium_band = contract.PriceBandMeanPremium(rate(bands.premium_tolerance))
        return row

    def depth(self, market_id: int, view: DepthView) -> contract.Depth:
        """Bids ascending, the best last; asks ascending, the best first.   [W-3]"""
        market = self.market(market_id)
        return contract.Depth(
            asks=[(market.price(ticks), market.quantity(lots)) for ticks, lots in view.asks],
            bids=[(market.price(ticks), market.quantity(lots)) for ticks, lots in reversed(view.bids)],
            last_update_id=str(view.last_update_id),
            timestamp=view.at_us,
        )

    def trade(self, market_id: int, row: TradeRow) -> contract.Trade:
        market = self.market(market_id)
        return contract.Trade(
            price=market.price(row.price_ticks),
            quantity=market.quantity(row.lots),
            quote_quantity=market.quote(row.quote_atoms),
            timestamp=row.at_us // 1000,
            is_buyer_maker=row.is_buyer_maker,
            id=row.trade_id,
        )

    def kline(self, market_id: int, row: KlineRow) -> contract.Kline:
        market = self.market(market_id)
        return contract.Kline(
            start=seconds_iso(row.start_s),
            end=seconds_iso(row.end_s),
            volume=market.quantity(row.lots),
            quote_volume=market.quote(row.quote_atoms),
            trades=str(row.trades),
            open=UNSET if row.open_price_ticks is None else market.price(row.open_price_ticks),
            high=UNSET if row.high_price_ticks is None else market.price(row.high_price_ticks),
            low=UNSET if row.low_price_ticks is None else market.price(row.low_price_ticks),
            close=UNSET if row.close_price_ticks is None else market.price(row.close_price_ticks),
        )

    def price_kline(self, row: KlineRow) -> contract.Kline:
        """A candle of a mark or an index: its prices are in PRICE_SCALE, and nothing is traded at it."""
        prices = (row.open_price_ticks, row.high_price_ticks, row.low_price_ticks, row.close_price_ticks)
        said = (UNSET if price is None else price_in_usd(price) for price in prices)
        return contract.Kline(seconds_iso(row.start_s), seconds_iso(row.end_s), "0", "0", "0", *said)

    def ticker(self, row: TickerRow) -> contract.Ticker:
        """`priceChangePercent` is a fraction of the first price, to nine decimals, ties to even."""
        market = self.market(row.market_id)
        change = row.last_price_ticks - row.first_price_ticks
        return contract.Ticker(
            symbol=market.symbol,
            first_price=market.price(row.first_price_ticks),
            last_price=market.price(row.last_price_ticks),
            price_change=market.price(change),
            price_change_percent=rate(mul_div_half_even(change, 10**RATE_DECIMALS, row.first_price_ticks)),
            high=market.price(row.high_price_ticks),
            low=market.price(row.low_price_ticks),
            volume=market.quantity(row.lots),
            quote_volume=market.quote(row.quote_atoms),
            trades=str(row.trades),
        )

    # Assets and collateral.

    def asset_row(self, asset: AssetParameters) -> contract.MarketAsset:
        tokens = [token for token in self.state.tokens.values() if token.asset_id == asset.asset_id]
        return contract.MarketAsset(
            symbol=asset.symbol, display_name=asset.display_name, tokens=[self._token(token) for token in tokens]
        )

    def _token(self, token: TokenParameters) -> contract.Token:
        asset_id = token.asset_id
        return contract.Token(
            display_name=self.state.assets[asset_id].display_name,
            blockchain=self.state.chains[token.chain_id].name,
            deposit_enabled=token.deposit_enabled,
            minimum_deposit=self.amount(asset_id, token.minimum_deposit_atoms),
            withdraw_enabled=token.withdraw_enabled,
            minimum_withdrawal=self.amount(asset_id, token.minimum_withdrawal_atoms),
            withdrawal_fee=self.amount(asset_id, token.withdrawal_fee_atoms),
            contract_address=token.contract or UNSET,
            maximum_withdrawal=self.amount(asset_id, token.maximum_withdrawal_atoms),
            native_decimals=token.chain_decimals,
        )

    def collateral_row(self, asset: AssetParameters) -> contract.CollateralSummary:
        kind: contract.IdentityFunction | contract.InverseSqrtFunction
        if asset.weight_kind == WeightKind.INVERSE_SQRT:
            kind = contract.InverseSqrtFunction(rate(asset.weight_base), rate(asset.weight_penalty))
        else:
            kind = contract.IdentityFunction()
        return contract.CollateralSummary(
            symbol=asset.symbol,
            imf_function=sqrt_function(asset.imf_base, asset.imf_factor),
            mmf_function=sqrt_function(asset.mmf_base, asset.mmf_factor),
            haircut_function=contract.CollateralFunction(rate(asset.weight), kind),
        )

    # Accounts and capital.

    def account(self, subaccount: Subaccount) -> contract.AccountSummary:
        """Fees in basis points of the user's tier now; `positionLimit` as the perpetuals' own caps come to in USD."""
        user = subaccount.user
        spot = self.state.fees.spot[user.spot_tier]
        futures = self.state.fees.futures[user.futures_tier]
        return contract.AccountSummary(
            auto_borrow_settlements=subaccount.auto_borrow_settlements,
            auto_lend=subaccount.auto_lend,
            auto_realize_pnl=subaccount.auto_realize_pnl,
            auto_repay_borrows=subaccount.auto_repay_borrows,
            borrow_limit=usd(self.state.limits.borrow_limit_usd),
            futures_maker_fee=basis_points(futures.maker_rate),
            futures_taker_fee=basis_points(futures.taker_rate),
            leverage_limit=rate(subaccount.leverage_limit),
            limit_orders=len(subaccount.orders),
            liquidating=False,
            position_limit=usd(self._position_limit()),
            spot_maker_fee=basis_points(spot.maker_rate),
            spot_taker_fee=basis_points(spot.taker_rate),
            trigger_orders=len(subaccount.waiting),
        )

    def _position_limit(self) -> int:
        """Σ over perpetuals of the most that one subaccount may hold, at mark, in USD (1e-8), rounded down.   [S-7]"""
        price, _unit, in_usd, *_rest = margin.line(self.state, self.state.usdc)
        total = 0
        for market in self.state.markets.values():
            perpetual = market.parameters.perpetual
            if perpetual is not None:
                lots = perpetual.position_limit_lots or perpetual.open_interest_limit_lots
                total += lots * market.mark_lot
        return total * price // in_usd

    def balances(self, subaccount_id: int) -> dict[str, contract.Balance]:
        """Every listed asset of which the subaccount holds something."""
        state = self.state
        reserved = state.subaccounts[subaccount_id].reserved
        rows: dict[str, contract.Balance] = {}
        for asset_id, asset in state.assets.items():
            held = state.held(subaccount_id, asset_id)
            if held:
                locked = reserved.get(asset_id, 0)
                rows[asset.symbol] = contract.Balance(
                    available=format_decimal(held - locked, asset.decimals),
                    locked=format_decimal(locked, asset.decimals),
                    staked="0",
                )
        return rows

    def deposit(self, view: DepositView, to_address: str | None) -> contract.Deposit:
        chain = self.state.chains[view.chain_id].name
        return contract.Deposit(
            id=view.deposit_id,
            source=chain[:1].lower() + chain[1:],
            status=_DEPOSIT_STATUS[view.state],
            symbol=self.symbol(view.asset_id),
            quantity=self.amount(view.asset_id, view.atoms),
            created_at=naive_iso(view.created_at_us),
            to_address=UNSET if to_address is None else to_address,
            transaction_hash=view.tx_id,
        )

    def withdrawal(self, view: WithdrawalView) -> contract.Withdrawal:
        """`quantity` is what left the balance; the recipient gets it less `fee`."""
        return contract.Withdrawal(
            id=view.withdrawal_id,
            blockchain=self.state.chains[view.chain_id].name,
            quantity=self.amount(view.asset_id, view.atoms),
            fee=self.amount(view.asset_id, view.fee_atoms),
            symbol=self.symbol(view.asset_id),
            status=_WITHDRAWAL_STATUS[view.state],
            to_address=view.address,
            created_at=naive_iso(view.created_at_us),
            is_internal=False,
            client_id=view.client_id or UNSET,
            # The contract has 16 bits for it.
            subaccount_id=view.subaccount_id if view.subaccount_id < 1 << 16 else UNSET,
            transaction_hash=view.tx_id or UNSET,
        )


def percent(fraction: int) -> str:
    """A fraction in 1e-9 as a percentage: 800,000,000 → `80`."""
    return format_decimal(fraction, RATE_DECIMALS - 2)


def trigger_quantity(view: OrderView, market: MarketCodec) -> str:
    """What a trigger order is over: a quantity, or a percentage of the position.   [S-9]"""
    assert view.terms is not None, f"order {view.order_id} waits for nothing"
    if view.terms.trigger_percent:
        return percent(view.terms.trigger_percent) + "%"
    return market.quantity(view.lots)


def system_order_type(terms: OrderTerms | None) -> Any:
    """Why the exchange itself made an order; UNSET for a user's."""
    return UNSET if terms is None else _SYSTEM_ORDERS.get(terms.origin, UNSET)


def _conditions(view: OrderView, terms: OrderTerms, market: MarketCodec) -> dict[str, Any]:
    """Trigger and brackets, under the contract's names; the limit of a market bracket is left out."""
    row: dict[str, Any] = {}
    if terms.trigger_by:
        row["trigger_by"] = TRIGGER_NAMES[terms.trigger_by]
        row["trigger_price"] = market.price(terms.trigger_price_ticks)
        row["trigger_quantity"] = trigger_quantity(view, market)
    for name, bracket in (("stop_loss", terms.stop_loss), ("take_profit", terms.take_profit)):
        if bracket is not None:
            row[f"{name}_trigger_by"] = TRIGGER_NAMES[bracket.trigger_by]
            row[f"{name}_trigger_price"] = market.price(bracket.trigger_price_ticks)
            if bracket.limit_price_ticks:
                row[f"{name}_limit_price"] = market.price(bracket.limit_price_ticks)
    return row


def _slippage(terms: OrderTerms | StrategyView | None) -> dict[str, Any]:
    """A tolerance in ticks or in percent of the price."""
    if terms is None or not terms.slippage:
        return {}
    if terms.slippage_kind == SlippageKind.TICKS:
        return {"slippage_tolerance": str(terms.slippage), "slippage_tolerance_type": "TickSize"}
    return {"slippage_tolerance": percent(terms.slippage), "slippage_tolerance_type": "Percent"}


def rate(value: int) -> str:
    """A rate, fraction, weight or multiplier in 1e-9 as a decimal string."""
    return format_decimal(value, RATE_DECIMALS)


def usd(value: int) -> str:
    """A USD value in 1e-8 as a decimal string."""
    return format_decimal(value, USD_DECIMALS)


def price_in_usd(value: int) -> str:
    """A mark or index price in PRICE_SCALE as a decimal string."""
    return format_decimal(value, PRICE_DECIMALS)


def annual_rate(value: int) -> str:
    """An annual rate, or a quotient, in 1e-18 as a decimal string."""
    return format_decimal(value, ANNUAL_DECIMALS)


def basis_points(value: int) -> str:
    return format_decimal(value, BASIS_POINT_DECIMALS)


def expiry_name(reason: ExpiryReason) -> str:
    """IMMEDIATE_OR_CANCEL → `ImmediateOrCancel`, the contract's spelling."""
    return reason.name.title().replace("_", "")


def naive_iso(at_us: int) -> str:
    """Naive ISO UTC with milliseconds: `2025-07-27T18:05:40.897`."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + (
        f".{at_us // 1000 % 1000:03d}"
    )


def seconds_iso(at_s: int) -> str:
    """Naive ISO UTC of a whole second, as candles have it."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def sqrt_function(base: int, factor: int) -> contract.SqrtFunction:
    """`{type: "sqrt", base, factor}`: max(base, factor × √notional).   [M-3]"""
    return contract.SqrtFunction(rate(base), rate(factor))
