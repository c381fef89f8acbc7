"""The state as canonical bytes: what recovery starts from, and what the state hash is the hash of.   [A-9, A-10]

Two states that behave alike give the same bytes, whatever way their dicts and heaps grew: tables are sorted by key,
what is zero is left out, books are written in priority order. What follows from the orders (their indices, the locked
amounts) is not written but made again.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from engine import events, liquidation, liquidity, pool_collateral, pools, rfq, strategies, triggers
from engine.book import Book, queue
from engine.commands import ClockMode, OrderType, Quote, SelfTrade, Side, TimeInForce
from engine.events import DepositView, OrderTerms, QuoteView, RfqView, StrategyView, WithdrawalView
from engine.fees import USDC
from engine.formulas.prices import lot_value
from engine.funding import next_due_us
from engine.parameters import (
    AssetParameters,
    ChainParameters,
    FeeSchedule,
    Limits,
    MarketParameters,
    PoolParameters,
    TokenParameters,
)
from engine.perpetuals import rest
from engine.posting import move_position, move_unsettled, position_of
from engine.spot_margin import spend
from engine.state import (
    ASSET_BITS,
    SPENDS_AT_FILL,
    AmmHolder,
    AmmPool,
    AmmPosition,
    ApiKey,
    AssetPricing,
    Liquidation,
    Loan,
    Market,
    Order,
    Pool,
    Position,
    Premium,
    Rfq,
    ShareTime,
    State,
    Strategy,
    Subaccount,
    User,
    WriteDown,
)
from engine.yields import next_close_us
from ledger.amounts import join_atoms, split_atoms
from ledger.chart import OWNER_BITS, OWNER_MASK, AccountKind, account_id, market_of, underlying

VERSION = 4

_ASSET_MASK = (1 << ASSET_BITS) - 1
_SUBACCOUNT_KINDS = (AccountKind.AVAILABLE, AccountKind.LENT, AccountKind.BORROWED, AccountKind.RECEIVABLE)


class SnapshotError(ValueError):
    """Bytes that are not a snapshot of this version."""


def dump(state: State) -> bytes:
    """Canonical bytes of the whole state.   [A-10]"""
    return _encode(
        _Content(
            VERSION,
            _Scalars(**{name: getattr(state, name) for name in _Scalars.__struct_fields__}),
            [state.assets[asset_id] for asset_id in sorted(state.assets)],
            [state.chains[chain_id] for chain_id in sorted(state.chains)],
            [state.tokens[key] for key in sorted(state.tokens)],
            [_market(state.markets[market_id]) for market_id in sorted(state.markets)],
            [_user(state.users[user_id]) for user_id in sorted(state.users)],
            [_subaccount(state.subaccounts[number]) for number in sorted(state.subaccounts)],
            [(key, pair.user_id, pair.subaccount_id) for key, pair in sorted(state.api_keys.items())],
            [
                (key >> ASSET_BITS, key & _ASSET_MASK, *split_atoms(atoms))
                for key, atoms in sorted(state.balances.items())
                if atoms
            ],
            [(asset, price, state.price_at_us[asset]) for asset, price in sorted(state.prices.items())],
            sorted(state.deposits.values(), key=lambda deposit: deposit.deposit_id),
            [state.withdrawals[number] for number in sorted(state.withdrawals)],
            list(state.open_withdrawals),
            [(*key, number) for key, number in sorted(state.withdrawal_keys.items())],
            sorted(state.stopped_withdrawals.items()),
            [(key, until_ms, reply) for key, (until_ms, reply) in state.requests.items()],
            sorted(state.marks.items()),
            [_pricing(asset, state.pricing[asset]) for asset in sorted(state.pricing)],
            [_pool(state.pools[asset]) for asset in sorted(state.pools)],
            sorted(state.small_debts),
            [_liquidation(number, state.liquidations[number]) for number in sorted(state.liquidations)],
            sorted(state.unclaimed.items()),
            sorted(state.holes.items()),
            sorted(state.taken.items()),
            _waiting(state),
            list(state.triggered),
            [_strategy(state.strategies[number]) for number in sorted(state.strategies)],
            [_request(request) for request in state.rfqs.values()],
            [_amm_pool(state.amm_pools[pool_id]) for pool_id in sorted(state.amm_pools)],
        )
    )


def load(content: bytes) -> State:
    """The state that `dump` wrote. Raises SnapshotError."""
    try:
        image = _decode(content)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise SnapshotError(f"not a snapshot of version {VERSION}: {error}") from None
    if image.version != VERSION:
        raise SnapshotError(f"snapshot of version {image.version}; this program reads {VERSION}")

    state = State()
    for name in _Scalars.__struct_fields__:
        setattr(state, name, getattr(image.scalars, name))
    state.assets = {asset.asset_id: asset for asset in image.assets}
    state.usdc = next((asset.asset_id for asset in image.assets if asset.symbol == USDC), 0)
    state.chains = {chain.chain_id: chain for chain in image.chains}
    state.tokens = {(token.chain_id, token.asset_id): token for token in image.tokens}
    for user in image.users:
        state.users[user.user_id] = _load_user(user)
    for entry in image.subaccounts:
        state.subaccounts[entry.subaccount_id] = _load_subaccount(state, entry)
        state.highest_subaccount_id = max(state.highest_subaccount_id, entry.subaccount_id)
    state.api_keys = {key: ApiKey(user_id, subaccount_id) for key, user_id, subaccount_id in image.api_keys}
    state.balances = {
        account << ASSET_BITS | asset: join_atoms(high, atoms) for account, asset, high, atoms in image.balances
    }
    state.prices = {asset: price for asset, price, _at in image.prices}
    state.price_at_us = {asset: at_us for asset, _price, at_us in image.prices}
    state.deposits = {(deposit.chain_id, deposit.tx_id, deposit.index): deposit for deposit in image.deposits}
    state.withdrawals = {withdrawal.withdrawal_id: withdrawal for withdrawal in image.withdrawals}
    state.open_withdrawals = {number: state.withdrawals[number] for number in image.open_withdrawals}
    state.withdrawal_keys = {(subaccount_id, key): number for subaccount_id, key, number in image.withdrawal_keys}
    state.stopped_withdrawals = dict(image.stopped_withdrawals)
    state.requests = {key: (until_ms, _reply(raw)) for key, until_ms, raw in image.requests}
    state.marks = dict(image.marks)
    state.pricing = {row.item_id: _load_pricing(row) for row in image.pricing}
    state.pools = {row.asset_id: _load_pool(row) for row in image.pools}
    state.small_debts = dict.fromkeys(image.small_debts)
    state.liquidations = {row.subaccount_id: _load_liquidation(row) for row in image.liquidations}
    liquidation.note_due(state)
    state.unclaimed, state.holes, state.taken = dict(image.unclaimed), dict(image.holes), dict(image.taken)
    state.automatic = {
        number: None for number, each in state.subaccounts.items() if each.auto_lend or each.auto_repay_borrows
    }
    _load_asset_ids(state)
    _load_yields(state)
    liquidity.count(state)
    _load_markets(state, image.markets)
    _load_waiting(state, image)
    _load_strategies(state, image)
    state.funding_due_us = next_due_us(state)
    _load_positions(state, image.subaccounts)
    for row in image.amm_pools:
        _load_amm_pool(state, row)
    state.amm_positions = dict(sorted(state.amm_positions.items()))
    pools.note_due(state)
    pool_collateral.note(state)
    return state


def digest(content: bytes) -> bytes:
    """The state hash of a snapshot's bytes: SHA-256.   [A-10]"""
    return sha256(content).digest()


def state_hash(state: State) -> bytes:
    return digest(dump(state))


class _Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A row of a snapshot: fields by position; new ones go to the end with a default."""


class _Scalars(_Row, frozen=True):
    """What the state holds one of, under the names of `State`."""

    exchange: str
    devnet: bool
    public_key: bytes
    operator_keys: tuple[bytes, ...]
    limits: Limits
    fees: FeeSchedule
    sequence: int
    at_us: int
    clock_mode: ClockMode
    clock_offset_us: int
    wall_ms: int
    next_order_id: int
    next_user_id: int
    next_subaccount_id: int
    next_deposit_id: int
    next_withdrawal_id: int
    next_epoch: int
    last_epoch_hour: int
    sampled_second: int
    next_position_id: int
    last_interest_hour: int
    throttled_second: int
    settled_second: int
    next_strategy_id: int
    next_rfq_id: int
    next_quote_id: int
    next_amm_position_id: int = 1


class _Resting(_Row, frozen=True):
    order_id: int
    client_id: int | None
    subaccount_id: int
    order_type: OrderType
    time_in_force: TimeInForce
    price_ticks: int
    lots: int
    quote_atoms: int
    flags: int
    self_trade: SelfTrade
    created_at_us: int
    executed_lots: int
    executed_quote_atoms: int
    terms: OrderTerms | None = None


class _Waiting(_Row, frozen=True):
    """A trigger order that waits.   [S-9]"""

    market_id: int
    side: Side
    order: _Resting


class _Strategy(_Row, frozen=True):
    view: StrategyView
    next_us: int
    slices_left: int
    auto_lend: bool
    auto_lend_redeem: bool
    auto_borrow: bool
    auto_borrow_repay: bool
    order_id: int
    stopped_by: str


class _Rfq(_Row, frozen=True):
    view: RfqView
    flags: int
    quotes: list[tuple[QuoteView, int]]
    """Each with its flags, the first first."""


class _Market(_Row, frozen=True):
    parameters: MarketParameters
    listed_at_us: int
    last_price_ticks: int
    next_trade_id: int
    bids: list[_Resting]
    asks: list[_Resting]
    """Best first, then first come: priority order."""
    mark: int
    settled: int
    pricing: _Pricing
    premium: _Premium
    next_funding_us: int
    funding_index: str
    funding_rate: int
    loss_index: tuple[str, str]
    """Sums over time are decimal strings: they need not fit 64 bits."""


class _User(_Row, frozen=True):
    user_id: int
    opened_at_us: int
    subaccount_ids: list[int]
    keys: list[tuple[bytes, int]]
    spot_tier: int
    futures_tier: int
    granted_spot_tier: int
    granted_futures_tier: int
    volume_hour: int
    volume_buckets: list[tuple[int, str]]
    """(hour, USD in 1e-8 as a decimal string: a month's sum need not fit 64 bits)."""


class _Loan(_Row, frozen=True):
    asset_id: int
    position_id: int
    opened_at_us: int
    flow_atoms: int


class _ShareTime(_Row, frozen=True):
    asset_id: int
    period: int
    since_ms: int
    prefix: str
    share_ms: str
    carry: str
    seen: int = 0
    recovering: list[tuple[int, str, str]] = []
    """(write-down, shares, index collected up to).   [L-7]"""


class _Subaccount(_Row, frozen=True):
    subaccount_id: int
    user_id: int
    opened_at_us: int
    provisional: list[tuple[int, int]]
    frozen_withdrawals: int
    auto_lend: bool
    auto_repay_borrows: bool
    auto_borrow_settlements: bool
    auto_realize_pnl: bool
    leverage_limit: int
    lent: list[_Loan]
    debts: list[_Loan]
    share_times: list[_ShareTime]
    positions: list[_Position]
    backstop_usd: int


class _Position(_Row, frozen=True):
    """What a position remembers; its lots and cost are balances. Sums over time are decimal strings."""

    market_id: int
    position_id: int
    opened_at_us: int
    entry_atoms: int
    traded: str
    fees: str
    funding: str
    closed_lots: str


class _Liquidation(_Row, frozen=True):
    subaccount_id: int
    since_us: int
    next_second: int
    step_atoms: list[tuple[int, int]]
    unfilled_ticks: int
    failed_buys: list[tuple[int, int]]
    frozen: list[tuple[int, int]]
    sides: list[tuple[int, int]]


class _Pool(_Row, frozen=True):
    """Integers that need not fit 64 bits are decimal strings."""

    asset_id: int
    accrued_ms: int
    carry: str
    fee_carry: str
    bound: int
    period: int
    share_ms: str
    share_since_ms: int
    pending_yield: str
    residue: str
    closes_ms: int
    period_rates: list[tuple[int, str]]
    rate_prefix: str
    write_downs: list[tuple[int, int, int, int, int, str, int, str, str, int]] = []
    """(number, time, atoms, mark, value, shares, paid, index, residue, filled).   [L-7]"""


class _Pricing(_Row, frozen=True):
    item_id: int
    """The asset, or of a perpetual the market."""
    quotes: list[Quote]
    deviation: int
    silent_seconds: int
    marks: list[int]
    live_until_us: int
    has_data: bool


class _Premium(_Row, frozen=True):
    total: str
    samples: int
    last300: list[int | None]


class _AmmPosition(_Row, frozen=True):
    position_id: int
    subaccount_id: int
    is_native_collateral: bool
    collateral: str
    leverage: str
    owed: str
    custody: str
    health: str
    opened_at_us: int
    unpaid: str
    paid: str
    paid_custody: str


class _AmmHolder(_Row, frozen=True):
    subaccount_id: int
    since_us: int
    units: str
    native_added: str
    external_added: str
    earned: tuple[str, str, str, str]
    seen: tuple[str, str, str, str]


class _AmmPool(_Row, frozen=True):
    """A liquidity pool; amounts are decimal strings: they need not fit 64 bits. Sums over positions follow.   [X-14]"""

    parameters: PoolParameters
    native_balance: str
    external_balance: str
    native_fund: str
    external_fund: str
    health: int
    rate: int
    next_epoch_us: int
    mean_price: str
    mean_at_us: int
    earned: tuple[str, str, str, str]
    positions: list[_AmmPosition]
    """By id."""
    holders: list[_AmmHolder]
    """By subaccount."""


class _Content(_Row, frozen=True):
    version: int
    scalars: _Scalars
    assets: list[AssetParameters]
    chains: list[ChainParameters]
    tokens: list[TokenParameters]
    markets: list[_Market]
    users: list[_User]
    subaccounts: list[_Subaccount]
    api_keys: list[tuple[bytes, int, int]]
    balances: list[tuple[int, int, int, int]]
    """(account, asset, atoms_high, atoms), as SQL splits an amount."""
    prices: list[tuple[int, int, int]]
    deposits: list[DepositView]
    withdrawals: list[WithdrawalView]
    open_withdrawals: list[int]
    withdrawal_keys: list[tuple[int, str, int]]
    stopped_withdrawals: list[tuple[int, str]]
    requests: list[tuple[bytes, int, Any]]
    marks: list[tuple[int, int]]
    pricing: list[_Pricing]
    pools: list[_Pool]
    small_debts: list[tuple[int, int]]
    liquidations: list[_Liquidation]
    unclaimed: list[tuple[int, int]]
    holes: list[tuple[int, int]]
    taken: list[tuple[int, int]]
    waiting: list[_Waiting] = []
    """By order id."""
    triggered: list[int] = []
    strategies: list[_Strategy] = []
    rfqs: list[_Rfq] = []
    """The one that ends first first."""
    amm_pools: list[_AmmPool] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Content).decode
_FACTS: dict[str, type] = {
    name: kind
    for name, kind in vars(events).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not name.startswith("_")
}


def _market(market: Market) -> _Market:
    book: Book = market.book
    bids, asks = (
        [_resting(order) for level in ladder.from_best() for order in queue(level)] for ladder in (book.bids, book.asks)
    )
    premium = market.premium
    return _Market(
        market.parameters,
        market.listed_at_us,
        market.last_price_ticks,
        market.next_trade_id,
        bids,
        asks,
        market.mark,
        market.settled,
        _pricing(market.parameters.market_id, market.pricing),
        _Premium(str(premium.total), premium.samples, premium.last300),
        market.next_funding_us,
        str(market.funding_index),
        market.funding_rate,
        (str(market.loss_index[0]), str(market.loss_index[1])),
    )


def _resting(order: Order) -> _Resting:
    return _Resting(
        order.order_id,
        order.client_id,
        order.subaccount.subaccount_id,
        order.order_type,
        order.time_in_force,
        order.price_ticks,
        order.lots,
        order.quote_atoms,
        order.flags,
        order.self_trade,
        order.created_at_us,
        order.executed_lots,
        order.executed_quote_atoms,
        order.terms,
    )


def _user(user: User) -> _User:
    return _User(
        user.user_id,
        user.opened_at_us,
        user.subaccount_ids,
        sorted(user.keys.items()),
        user.spot_tier,
        user.futures_tier,
        user.granted_spot_tier,
        user.granted_futures_tier,
        user.volume_hour,
        [(hour, str(usd)) for hour, usd in sorted(user.volume_buckets.items()) if usd],
    )


def _subaccount(subaccount: Subaccount) -> _Subaccount:
    return _Subaccount(
        subaccount.subaccount_id,
        subaccount.user.user_id,
        subaccount.opened_at_us,
        sorted((asset, atoms) for asset, atoms in subaccount.provisional.items() if atoms),
        subaccount.frozen_withdrawals,
        subaccount.auto_lend,
        subaccount.auto_repay_borrows,
        subaccount.auto_borrow_settlements,
        subaccount.auto_realize_pnl,
        subaccount.leverage_limit,
        [_loan(asset, subaccount.lent[asset]) for asset in sorted(subaccount.lent)],
        [_loan(asset, subaccount.debts[asset]) for asset in sorted(subaccount.debts)],
        [_share_time(asset, subaccount.share_times[asset]) for asset in sorted(subaccount.share_times)],
        [_position(subaccount.positions[market_id]) for market_id in sorted(subaccount.positions)],
        subaccount.backstop_usd,
    )


def _position(position: Position) -> _Position:
    return _Position(
        position.market.parameters.market_id,
        position.position_id,
        position.opened_at_us,
        position.entry_atoms,
        str(position.traded),
        str(position.fees),
        str(position.funding),
        str(position.closed_lots),
    )


def _amm_pool(pool: AmmPool) -> _AmmPool:
    return _AmmPool(
        pool.parameters,
        str(pool.native_balance),
        str(pool.external_balance),
        str(pool.native_fund),
        str(pool.external_fund),
        pool.health,
        pool.rate,
        pool.next_epoch_us,
        str(pool.mean_price),
        pool.mean_at_us,
        _texts(pool.earned),
        [
            _AmmPosition(
                number,
                position.subaccount_id,
                position.is_native_collateral,
                str(position.collateral),
                str(position.leverage),
                str(position.owed),
                str(position.custody),
                str(position.health),
                position.opened_at_us,
                str(position.unpaid),
                str(position.paid),
                str(position.paid_custody),
            )
            for number, position in sorted(pool.positions.items())
        ],
        [
            _AmmHolder(
                number,
                holder.since_us,
                str(holder.units),
                str(holder.native_added),
                str(holder.external_added),
                _texts(holder.earned),
                _texts(holder.seen),
            )
            for number, holder in sorted(pool.holders.items())
        ],
    )


def _texts(amounts: tuple[int, int, int, int]) -> tuple[str, str, str, str]:
    return str(amounts[0]), str(amounts[1]), str(amounts[2]), str(amounts[3])


def _numbers(texts: tuple[str, str, str, str]) -> tuple[int, int, int, int]:
    return int(texts[0]), int(texts[1]), int(texts[2]), int(texts[3])


def _load_amm_pool(state: State, row: _AmmPool) -> None:
    pool = AmmPool(row.parameters)
    pool.native_balance, pool.external_balance = int(row.native_balance), int(row.external_balance)
    pool.native_fund, pool.external_fund = int(row.native_fund), int(row.external_fund)
    pool.health, pool.rate, pool.next_epoch_us = row.health, row.rate, row.next_epoch_us
    pool.mean_price, pool.mean_at_us, pool.earned = int(row.mean_price), row.mean_at_us, _numbers(row.earned)
    for entry in row.positions:
        position = AmmPosition(
            entry.position_id,
            entry.subaccount_id,
            row.parameters.pool_id,
            entry.is_native_collateral,
            int(entry.collateral),
            int(entry.leverage),
            int(entry.health),
            entry.opened_at_us,
        )
        position.owed, position.custody = int(entry.owed), int(entry.custody)
        position.unpaid, position.paid = int(entry.unpaid), int(entry.paid)
        position.paid_custody = int(entry.paid_custody)
        state.amm_positions[entry.position_id] = pool.positions[entry.position_id] = position
        if position.is_native_collateral:
            pool.native_owed += position.owed
            pool.external_custody += position.custody
        else:
            pool.external_owed += position.owed
            pool.native_custody += position.custody
    for kept in row.holders:
        holder = pool.holders[kept.subaccount_id] = AmmHolder(kept.since_us, _numbers(kept.seen))
        holder.units, holder.earned = int(kept.units), _numbers(kept.earned)
        holder.native_added, holder.external_added = int(kept.native_added), int(kept.external_added)
        pool.units += holder.units
    state.amm_pools[row.parameters.pool_id] = pool


def _liquidation(number: int, liquidation: Liquidation) -> _Liquidation:
    return _Liquidation(
        number,
        liquidation.since_us,
        liquidation.next_second,
        sorted(liquidation.step_atoms.items()),
        liquidation.unfilled_ticks,
        sorted(liquidation.failed_buys.items()),
        sorted(liquidation.frozen.items()),
        sorted(liquidation.sides.items()),
    )


def _load_liquidation(row: _Liquidation) -> Liquidation:
    return Liquidation(
        row.since_us,
        row.next_second,
        dict(row.step_atoms),
        row.unfilled_ticks,
        dict(row.failed_buys),
        dict(row.frozen),
        dict(row.sides),
    )


def _loan(asset_id: int, loan: Loan) -> _Loan:
    return _Loan(
        asset_id,
        loan.position_id,
        loan.opened_at_us,
        loan.flow_atoms,
    )


def _share_time(asset_id: int, time: ShareTime) -> _ShareTime:
    recovering = [(number, str(shares), str(index)) for number, (shares, index) in sorted(time.recovering.items())]
    numbers = (str(time.prefix), str(time.share_ms), str(time.carry))
    return _ShareTime(asset_id, time.period, time.since_ms, *numbers, time.seen, recovering)


def _load_loan(row: _Loan) -> Loan:
    loan = Loan(row.position_id, row.opened_at_us)
    loan.flow_atoms = row.flow_atoms
    return loan


def _pool(pool: Pool) -> _Pool:
    return _Pool(
        pool.asset_id,
        pool.accrued_ms,
        str(pool.carry),
        str(pool.fee_carry),
        pool.bound,
        pool.period,
        str(pool.share_ms),
        pool.share_since_ms,
        str(pool.pending_yield),
        str(pool.residue),
        pool.closes_ms,
        [(period, str(rate)) for period, rate in sorted(pool.period_rates.items())],
        str(pool.rate_prefix),
        [
            (number, each.at_us, each.atoms, each.mark, each.value, str(each.shares), each.paid, str(each.index),
             str(each.residue), each.filled)
            for number, each in sorted(pool.write_downs.items())
        ],
    )


def _load_pool(row: _Pool) -> Pool:
    pool = Pool(row.asset_id, row.accrued_ms, row.bound)
    pool.carry, pool.fee_carry = int(row.carry), int(row.fee_carry)
    pool.period, pool.share_ms, pool.share_since_ms = row.period, int(row.share_ms), row.share_since_ms
    pool.pending_yield, pool.residue, pool.closes_ms = int(row.pending_yield), int(row.residue), row.closes_ms
    pool.period_rates = {period: int(rate) for period, rate in row.period_rates}
    pool.rate_prefix = int(row.rate_prefix)
    for number, at_us, atoms, mark, value, shares, paid, index, residue, filled in row.write_downs:
        found = WriteDown(at_us, atoms, mark, value, int(shares), paid, int(index), int(residue), filled)
        pool.write_downs[number] = found
        pool.next_write_down = number + 1
    return pool


def _pricing(item_id: int, pricing: AssetPricing) -> _Pricing:
    return _Pricing(
        item_id,
        [pricing.quotes[source] for source in sorted(pricing.quotes)],
        pricing.deviation,
        pricing.silent_seconds,
        pricing.marks,
        pricing.live_until_us,
        pricing.has_data,
    )


def _load_pricing(row: _Pricing) -> AssetPricing:
    pricing = AssetPricing()
    pricing.quotes = {quote.source: quote for quote in row.quotes}
    pricing.deviation, pricing.silent_seconds = row.deviation, row.silent_seconds
    pricing.marks, pricing.total = row.marks, sum(row.marks)
    pricing.sampled = sum(mark > 0 for mark in row.marks)
    pricing.live_until_us, pricing.has_data = row.live_until_us, row.has_data
    return pricing


def _load_premium(row: _Premium) -> Premium:
    premium = Premium()
    premium.total, premium.samples, premium.last300 = int(row.total), row.samples, row.last300
    present = [sample for sample in row.last300 if sample is not None]
    premium.total300, premium.sampled = sum(present), len(present)
    return premium


def _load_asset_ids(state: State) -> None:
    """What a subaccount holds, lends, owes or may collect; what it promised follows from its orders."""
    for subaccount in state.subaccounts.values():
        subaccount.asset_ids.update(dict.fromkeys(subaccount.share_times))
    for key in state.balances:
        account = key >> ASSET_BITS
        if account >> OWNER_BITS in _SUBACCOUNT_KINDS:
            subaccount = state.subaccounts[account & OWNER_MASK]
            subaccount.asset_ids[underlying(key & _ASSET_MASK)] = None
            if account >> OWNER_BITS == AccountKind.RECEIVABLE:
                subaccount.receivables[key & _ASSET_MASK] = None
            elif account >> OWNER_BITS == AccountKind.BORROWED and state.balances[key]:
                state.pools[underlying(key & _ASSET_MASK)].borrowers[account & OWNER_MASK] = None


def _load_yields(state: State) -> None:
    """What follows from the pools and from what is staked.   [Y-1, Y-3]"""
    for asset_id, pool in state.pools.items():
        staked = (account_id(AccountKind.STAKED, chain_id) << ASSET_BITS | asset_id for chain_id in state.chains)
        pool.staked = sum(state.balances.get(key, 0) for key in staked)
    state.has_recoveries = any(pool.write_downs for pool in state.pools.values())
    state.has_yields = state.has_recoveries or any(pool.period_rates for pool in state.pools.values())
    state.yield_due_us = next_close_us(state)


def _load_user(row: _User) -> User:
    user = User(row.user_id, row.opened_at_us)
    user.subaccount_ids = row.subaccount_ids
    user.keys = dict(row.keys)
    user.spot_tier, user.futures_tier = row.spot_tier, row.futures_tier
    user.granted_spot_tier, user.granted_futures_tier = row.granted_spot_tier, row.granted_futures_tier
    user.volume_hour = row.volume_hour
    user.volume_buckets = {hour: int(usd) for hour, usd in row.volume_buckets}
    user.volume_total = sum(user.volume_buckets.values())
    return user


def _load_subaccount(state: State, row: _Subaccount) -> Subaccount:
    subaccount = Subaccount(row.subaccount_id, state.users[row.user_id], row.opened_at_us)
    subaccount.provisional = dict(row.provisional)
    subaccount.frozen_withdrawals = row.frozen_withdrawals
    subaccount.auto_lend = row.auto_lend
    subaccount.auto_repay_borrows = row.auto_repay_borrows
    subaccount.auto_borrow_settlements = row.auto_borrow_settlements
    subaccount.auto_realize_pnl = row.auto_realize_pnl
    subaccount.leverage_limit = row.leverage_limit
    subaccount.lent = {loan.asset_id: _load_loan(loan) for loan in row.lent}
    subaccount.debts = {loan.asset_id: _load_loan(loan) for loan in row.debts}
    subaccount.share_times = {
        time.asset_id: ShareTime(
            time.period,
            time.since_ms,
            int(time.prefix),
            int(time.share_ms),
            int(time.carry),
            time.seen,
            {number: (int(shares), int(index)) for number, shares, index in time.recovering},
        )
        for time in row.share_times
    }
    return subaccount


def _load_markets(state: State, rows: list[_Market]) -> None:
    """Books in priority order give the queues; the orders' other indices and locks follow, oldest order first."""
    orders: list[Order] = []
    for row in rows:
        book = Book()
        market = Market(row.parameters, book, row.listed_at_us)
        market.last_price_ticks = row.last_price_ticks
        market.next_trade_id = row.next_trade_id
        market.mark, market.mark_lot = row.mark, lot_value(row.parameters, row.mark)
        market.settled = row.settled
        market.pricing, market.premium = _load_pricing(row.pricing), _load_premium(row.premium)
        market.next_funding_us, market.funding_rate = row.next_funding_us, row.funding_rate
        market.funding_index = int(row.funding_index)
        market.loss_index = [int(row.loss_index[0]), int(row.loss_index[1])]
        state.markets[row.parameters.market_id] = market
        for side, ladder, resting in ((Side.BID, book.bids, row.bids), (Side.ASK, book.asks, row.asks)):
            for entry in resting:
                order = _load_order(state, market, side, entry)
                ladder.rest(order)
                orders.append(order)
    for order in sorted(orders, key=lambda order: order.order_id):
        subaccount = order.subaccount
        state.orders[order.order_id] = order
        subaccount.orders[order.order_id] = order
        if order.client_id is not None:
            subaccount.client_ids[order.client_id] = order
        if order.market.parameters.perpetual is not None:
            rest(order, order.lots - order.executed_lots)
            continue
        asset, atoms = spend(state, order, order.lots - order.executed_lots)
        if order.flags & SPENDS_AT_FILL:
            subaccount.promised[asset] = subaccount.promised.get(asset, 0) + atoms
            subaccount.asset_ids[asset] = None
        else:
            subaccount.reserved[asset] = subaccount.reserved.get(asset, 0) + atoms


def _load_positions(state: State, rows: list[_Subaccount]) -> None:
    """Positions, claims and unsettled equity are balances; what they remember besides is in the rows.   [A-2]"""
    for row in rows:
        subaccount = state.subaccounts[row.subaccount_id]
        for entry in row.positions:
            held = position_of(subaccount, state.markets[entry.market_id])
            held.position_id, held.opened_at_us = entry.position_id, entry.opened_at_us
            held.entry_atoms, held.traded, held.fees = entry.entry_atoms, int(entry.traded), int(entry.fees)
            held.funding, held.closed_lots = int(entry.funding), int(entry.closed_lots)
        subaccount.backstop_usd = row.backstop_usd
        if row.backstop_usd:
            state.backstops[row.subaccount_id] = None
        if not subaccount.auto_realize_pnl:
            state.virtual[row.subaccount_id] = None
    for key, atoms in sorted(state.balances.items()):
        account, asset = key >> ASSET_BITS, key & _ASSET_MASK
        kind, number = account >> OWNER_BITS, account & OWNER_MASK
        if not atoms:
            continue
        if kind == AccountKind.POSITION:
            move_position(state, number, asset, -atoms)
        elif kind == AccountKind.UNSETTLED:
            move_unsettled(state, number, -atoms)
        elif kind == AccountKind.CLAIM:
            state.subaccounts[number].claims[market_of(asset)] = None
            state.virtual[number] = None
    for each in state.subaccounts.values():
        each.judge_by_margin()


def _waiting(state: State) -> list[_Waiting]:
    waiting = {
        number: order for subaccount in state.subaccounts.values() for number, order in subaccount.waiting.items()
    }
    return [
        _Waiting(order.market.parameters.market_id, order.side, _resting(order))
        for _number, order in sorted(waiting.items())
    ]


def _strategy(strategy: Strategy) -> _Strategy:
    return _Strategy(*(getattr(strategy, name) for name in _Strategy.__struct_fields__))


def _request(request: Rfq) -> _Rfq:
    quotes = [(quote, request.quote_flags[number]) for number, quote in request.quotes.items()]
    return _Rfq(request.view, request.flags, quotes)


def _load_waiting(state: State, image: _Content) -> None:
    """Orders that wait, and which of them have been triggered; the heaps follow.   [S-9]"""
    waiting: dict[int, Order] = {}
    for row in image.waiting:
        order = _load_order(state, state.markets[row.market_id], row.side, row.order)
        waiting[order.order_id] = order.subaccount.waiting[order.order_id] = order
        if order.client_id is not None:
            order.subaccount.client_ids[order.client_id] = order
    state.triggered = {number: waiting[number] for number in image.triggered}
    triggers.rebuild(state)


def _load_strategies(state: State, image: _Content) -> None:
    """Strategies and requests for quotes, and when the next of each is due.   [S-7]"""
    for row in image.strategies:
        strategy = Strategy(**{name: getattr(row, name) for name in row.__struct_fields__})
        number = row.view.strategy_id
        state.strategies[number] = state.subaccounts[row.view.subaccount_id].strategies[number] = strategy
    for each in image.rfqs:
        quotes = {quote.quote_id: quote for quote, _flags in each.quotes}
        flags = {quote.quote_id: quote_flags for quote, quote_flags in each.quotes}
        number = each.view.rfq_id
        loaded = Rfq(each.view, quotes, each.flags, flags)
        state.rfqs[number] = state.subaccounts[each.view.subaccount_id].rfqs[number] = loaded
    strategies.note_due(state)
    rfq.note_due(state)


def _load_order(state: State, market: Market, side: Side, row: _Resting) -> Order:
    return Order(
        row.order_id,
        row.client_id,
        market,
        state.subaccounts[row.subaccount_id],
        row.order_type,
        side,
        row.time_in_force,
        row.price_ticks,
        row.lots,
        row.quote_atoms,
        row.flags,
        row.self_trade,
        row.created_at_us,
        row.executed_lots,
        row.executed_quote_atoms,
        terms=row.terms,
    )


def _reply(raw: Any) -> Any:
    """A remembered reply: a fact is an array that starts with its name, a list of facts holds those.   [A-11]"""
    if not isinstance(raw, list):
        return raw
    if raw and isinstance(raw[0], str):
        return msgspec.convert(raw, _FACTS[raw[0]])
    return [_reply(item) for item in raw]
