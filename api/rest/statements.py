"""What the ledger says of the signer, to the signer: receipts, statements, balances of any block.   [W-7, A-12]"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from api.codec import naive_iso
from api.contract import Decimal, NaiveTime, Query, UInt64, Wire
from api.errors import ApiError, not_found
from api.requests import asset_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.parameters import MarketType
from engine.state import State
from ledger.amounts import format_decimal
from ledger.balances import STATEMENT_KINDS, NoSuchBlock, of_liquidity_pool, statement, subaccount_balances
from ledger.chart import (
    AccountKind,
    AssetId,
    account_id,
    account_name,
    asset_decimals,
    asset_symbol,
    claim_debt,
    claim_lend,
    contracts,
    cost,
    debt_share,
    external_custody,
    external_owed,
    is_native_of_amm,
    is_of_amm,
    is_of_market,
    kind_of,
    lend_share,
    market_of,
    native_custody,
    native_owed,
    owner_of,
    pool_of,
    pool_units,
    underlying,
)
from ledger.journal import JournalKind, SealedTransaction
from ledger.liquidity import Depths, depths
from ledger.positions import POSITION_AMOUNTS, POSITION_QUANTITIES, PositionPeriod, position_periods
from ledger.receipts import make_receipt

_HELD = (
    AccountKind.AVAILABLE,
    AccountKind.WITHDRAWING,
    AccountKind.LENT,
    AccountKind.BORROWED,
    AccountKind.UNSETTLED,
    AccountKind.CLAIM,
)


class StatementQuery(Query):
    from_block: UInt64 = 0
    to_block: UInt64 | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None


class AsOfQuery(Query):
    block: UInt64 | None = None
    """Height; now when absent."""


class StatementRow(Wire):
    """One posting on the subaccount; `quantity` above zero was credited, `balance` is the account's after it.

    A perpetual's contracts (`SOL_USDC_PERP`) above zero are long, its cost (`SOL_USDC_PERP.cost`) above zero is a gain
    over the last settled mark. Of the liquidity pool of USDC there are units (`USDC.pool-units`), what it keeps for
    open positions (`USDC.native-custody`, `USDC.custody`) and, below zero, what these owe it (`USDC.native-owed`,
    `USDC.owed`); units, and what is native, are counted as the native asset is.
    """

    journal: int
    block: int
    command: int
    at: NaiveTime
    kind: str
    account: str
    symbol: str
    quantity: Decimal
    balance: Decimal
    worth: Decimal | UnsetType = UNSET
    """Of a balance in shares (`SOL.lend`, `SOL.debt`, `SOL_USDC_PERP.claim`): what it is worth in their asset then, of
    claims in USDC; a debt is below zero.
    """


class PositionPeriodsQuery(Query):
    from_block: UInt64 = 0
    to_block: UInt64 | None = None


class PositionPeriodRow(Wire):
    """What became of a perpetual position in a range of blocks: what it gained in it, and what was not settled before,
    is `settled` or still `cost`.   [C-5, S-10]
    """

    symbol: str
    opening: Decimal
    """Below zero short; so is `closing`."""
    bought: Decimal
    sold: Decimal
    closing: Decimal
    traded: Decimal
    """What its fills gained over the mark that was last settled then, in the quote asset, as all that follows."""
    funding: Decimal
    shared: Decimal
    """Losses of others that its side of the market was charged.   [L-6]"""
    marked: Decimal
    """Σ quantity × (mark − mark before) over the settlement ticks."""
    settled: Decimal
    """What settlement ticks made USDC, claims or unsettled equity of."""
    cost: Decimal
    """Gained or lost and not settled yet, without what the mark has moved since the last tick."""
    fees: Decimal
    """Paid for its fills and for steps of a liquidation: `settled` − `fees` is what it brought."""


class AsOfBalance(Wire):
    held: Decimal
    """All that the subaccount has, what its open orders lock included: postings do not split the two. Of a perpetual
    (`SOL_USDC_PERP`) the position, below zero short; of `USDC.pool-units` the units in that liquidity pool.
    """
    withdrawing: Decimal
    lent: Decimal
    """With the interest that was posted by then; so is `borrowed`."""
    borrowed: Decimal
    unsettled: Decimal | UnsetType = UNSET
    """Settled gains that nobody has paid yet, or below zero losses; only where there are any.   [S-13]"""
    claims: Decimal | UnsetType = UNSET
    """What the liquidity fund holds (or below zero is owed) for all positions together; only where it does.   [V-1]"""
    pool_custody: Decimal | UnsetType = UNSET
    """What liquidity pools keep of it for open positions; only where they do.   [X-5]"""
    pool_owed: Decimal | UnsetType = UNSET
    """What open positions owe liquidity pools of it, interest left out; only where they do.   [X-5]"""
    native_worth: Decimal | UnsetType = UNSET
    """Of units: their part of the pool's depths then, rounded down, of the native asset here.   [X-4]"""
    external_worth: Decimal | UnsetType = UNSET


async def get_receipt(call: Call) -> dict[str, Any]:
    """A journal transaction with what proves it, offline, to whoever has the exchange's key; for those it touches.

    It shows the whole transaction: of a trade also the other side's subaccount number and amounts.   [A-4]
    """
    seq = call.number("journal")
    if seq == 0:
        # Journal transactions are numbered from 1.
        raise not_found()
    store = call.node.store
    user = call.state.users[call.key.user_id]
    own = {account_id(kind, number) for kind in STATEMENT_KINDS for number in user.subaccount_ids}

    def read() -> dict[str, Any] | None:
        entry = next(iter(store.journal(seq, seq)), None)
        if entry is None:
            return None
        touched = [account for account, _asset, _atoms in entry.postings if account in own]
        rows = _batch_accounts(entry, own)
        if not touched and not rows:
            command = next(iter(store.commands(entry.command_seq, entry.command_seq)))
            if command.request is None or command.request.api_key not in user.keys:
                return None
        return make_receipt(store, seq, *rows)

    receipt = await asyncio.to_thread(read)
    if receipt is None:
        raise not_found()
    return receipt


async def get_statement(call: Call) -> Answer:
    """Every posting on the signer's subaccount in a range of blocks, oldest first, with running balances.   [A-12]"""
    query: StatementQuery = call.query
    page = page_of(query.limit, query.offset)
    state, reader = call.state, call.node.store.engine
    accounts = [account_id(kind, call.key.subaccount_id) for kind in STATEMENT_KINDS]
    wanted = None if query.symbol is None else _named(state, query.symbol)

    def read() -> list[StatementRow]:
        return [
            StatementRow(
                journal=line.journal_seq,
                block=line.block_height,
                command=line.command_seq,
                at=naive_iso(line.at_us),
                kind=JournalKind(line.kind).name,
                account=account_name(line.account),
                symbol=_symbol(state, line.asset),
                # What the exchange owes is a credit in its books, and the customer's own.
                quantity=_amount(state, line.asset, -line.atoms),
                balance=_amount(state, line.asset, -line.balance),
                worth=UNSET if line.worth is None else _amount(state, _worth_in(state, line.asset), -line.worth),
            )
            for line in statement(reader, accounts, query.from_block, query.to_block)
            if wanted is None or line.asset in wanted
        ]

    rows = await _as_of(read)
    return paged(rows[page.offset : page.offset + page.limit], page, len(rows))


async def get_balances(call: Call) -> dict[str, AsOfBalance]:
    """What the signer's subaccount held after any past block.   [A-12]"""
    state, reader = call.state, call.node.store.engine
    block = call.query.block

    def read() -> tuple[dict[tuple[AccountKind, AssetId], int], dict[AssetId, Depths]]:
        holdings = subaccount_balances(reader, call.key.subaccount_id, block)
        units = [asset for kind, asset in holdings if kind == AccountKind.AMM_UNITS]
        return holdings, {asset: depths(reader, pool_of(asset), block) for asset in units}

    holdings, pools = await _as_of(read)
    rows: dict[str, AsOfBalance] = {}
    for asset_id, asset in state.assets.items():
        kept, withdrawing, lent, borrowed, unsettled, claims = (holdings.get((kind, asset_id), 0) for kind in _HELD)
        custody, owed = _in_liquidity_pools(state, holdings, asset_id)
        if kept or withdrawing or lent or borrowed or unsettled or claims or custody or owed:
            amounts = (_amount(state, asset_id, atoms) for atoms in (kept, withdrawing, lent, -borrowed))
            row = rows[asset.symbol] = AsOfBalance(*amounts)
            if unsettled:
                row.unsettled = _amount(state, asset_id, unsettled)
            if claims:
                row.claims = _amount(state, asset_id, claims)
            if custody:
                row.pool_custody = _amount(state, asset_id, custody)
            if owed:
                row.pool_owed = _amount(state, asset_id, owed)
    by_themselves = [(AccountKind.POSITION, contracts(market_id)) for market_id in state.markets]
    by_themselves += [(AccountKind.AMM_UNITS, pool_units(pool_id)) for pool_id in state.amm_pools]
    for kind, one in by_themselves:
        if held := holdings.get((kind, one), 0):
            zero = _amount(state, one, 0)
            row = rows[_symbol(state, one)] = AsOfBalance(_amount(state, one, held), zero, zero, zero)
            if one in pools:
                native, external = pools[one].part(held)
                row.native_worth = _amount(state, pools[one].native_asset, native)
                row.external_worth = _amount(state, pool_of(one), external)
    return rows


def _in_liquidity_pools(
    state: State, holdings: Mapping[tuple[AccountKind, AssetId], int], asset_id: AssetId
) -> tuple[int, int]:
    """(what liquidity pools keep of the asset for positions, what these owe of it), in atoms.   [X-5]"""
    custody = owed = 0
    for pool_id, pool in state.amm_pools.items():
        if asset_id == pool_id:
            kept, due = external_custody(pool_id), external_owed(pool_id)
        elif asset_id == pool.parameters.native_asset_id:
            kept, due = native_custody(pool_id), native_owed(pool_id)
        else:
            continue
        custody += holdings.get((AccountKind.AMM_CUSTODY, kept), 0)
        owed -= holdings.get((AccountKind.AMM_DEBT, due), 0)
    return custody, owed


async def get_position_periods(call: Call) -> list[PositionPeriodRow]:
    """What became of the signer's perpetual positions in a range of blocks, market by market.   [A-12, S-10]"""
    query: PositionPeriodsQuery = call.query
    state, reader, number = call.state, call.node.store.engine, call.key.subaccount_id
    periods = await _as_of(lambda: position_periods(reader, number, query.from_block, query.to_block))

    def row(period: PositionPeriod) -> PositionPeriodRow:
        counts = {POSITION_QUANTITIES: contracts(period.market_id), POSITION_AMOUNTS: cost(period.market_id)}
        amounts = {
            name: _amount(state, asset, getattr(period, name)) for names, asset in counts.items() for name in names
        }
        return PositionPeriodRow(symbol=_symbol(state, contracts(period.market_id)), **amounts)

    return [row(period) for period in periods]


def _named(state: State, symbol: str) -> tuple[AssetId, ...]:
    """What a symbol stands for in statements: an asset, the shares in it and all that its liquidity pool is made of, or
    all that a perpetual is made of.
    """
    for market_id, market in state.markets.items():
        parameters = market.parameters
        if parameters.symbol == symbol and parameters.type is MarketType.PERP:
            return contracts(market_id), cost(market_id), claim_lend(market_id), claim_debt(market_id)
    asset_id = asset_of(symbol, state)
    of_pool = of_liquidity_pool(asset_id) if asset_id in state.amm_pools else ()
    return asset_id, lend_share(asset_id), debt_share(asset_id), *of_pool


def _symbol(state: State, asset_id: AssetId) -> str:
    if is_of_market(asset_id):
        return asset_symbol(asset_id, state.markets[market_of(asset_id)].parameters.symbol)
    if is_of_amm(asset_id):
        return asset_symbol(asset_id, state.assets[pool_of(asset_id)].symbol)
    return asset_symbol(asset_id, state.assets[underlying(asset_id)].symbol)


def _worth_in(state: State, asset_id: AssetId) -> AssetId:
    """The asset that shares are worth something in: claims are shares in the pool of their market's quote.   [V-2]"""
    if is_of_market(asset_id):
        return state.markets[market_of(asset_id)].parameters.quote_asset_id
    return underlying(asset_id)


def _amount(state: State, asset_id: AssetId, atoms: int) -> str:
    """Of an asset, of shares in its money market, of a perpetual's contracts, costs and claims, of a liquidity pool's
    units, custody and debts.
    """
    if is_of_amm(asset_id):
        pool = state.amm_pools[pool_of(asset_id)].parameters
        counted = pool.native_asset_id if is_native_of_amm(asset_id) else pool.pool_id
        return format_decimal(atoms, asset_decimals(asset_id, state.assets[counted].decimals))
    counted = _worth_in(state, asset_id)
    if is_of_market(asset_id) and asset_id == contracts(market_of(asset_id)):
        counted = state.markets[market_of(asset_id)].parameters.base_asset_id
    return format_decimal(atoms, asset_decimals(asset_id, state.assets[counted].decimals))


async def _as_of(read: Any) -> Any:
    try:
        return await asyncio.to_thread(read)
    except NoSuchBlock as error:
        raise ApiError(404, "RESOURCE_NOT_FOUND", str(error)) from None


def _batch_accounts(entry: SealedTransaction, own: set[int]) -> list[int]:
    """Those of the accounts that have a row in one of the transaction's columnar batches."""
    return [
        account
        for account in sorted(own)
        if any(
            batch.account_kind == kind_of(account) and batch.atoms_of(owner_of(account)) for batch in entry.batches
        )
    ]


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/receipts/{journal}",
        handler=get_receipt,
        summary="Offline receipt of a journal transaction that touches the signer's user",
        tag="Ledger",
        instruction="receiptQuery",
        answer=dict[str, Any],
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/statement",
        handler=get_statement,
        summary="Postings of the signer's subaccount with running balances",
        tag="Ledger",
        instruction="statementQuery",
        query=StatementQuery,
        answer=list[StatementRow],
        paged=True,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/statement/positions",
        handler=get_position_periods,
        summary="What became of the signer's perpetual positions in a range of blocks",
        tag="Ledger",
        instruction="statementQuery",
        query=PositionPeriodsQuery,
        answer=list[PositionPeriodRow],
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/balances",
        handler=get_balances,
        summary="Balances of the signer's subaccount as of any block",
        tag="Ledger",
        instruction="balanceAsOfQuery",
        query=AsOfQuery,
        answer=dict[str, AsOfBalance],
        statuses=(404,),
    ),
]
