"""Proof-of-reserves epochs of a running node: the image at its block, the build, the log.   [R-1, R-20, R-24]"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from api.forked import Forked
from api.recount import require_recount
from engine import lending, liabilities
from engine.events import EpochClosed
from engine.formulas.lending import claim_atoms
from engine.liabilities import perpetuals
from engine.parameters import PRICE_SCALE, USD_SCALE
from engine.pricing import has_price, mark_price
from engine.sequencer import Halted
from engine.state import ASSET_BITS, AmmPool, Market, State, balance_key
from ledger import schema
from ledger.amounts import mul_div_down
from ledger.blocks import Block
from ledger.chart import (
    CHART,
    INSURANCE_FUND,
    OWNER_BITS,
    POOL_BORROWED,
    POOL_FEES,
    POOL_LENT,
    POOL_SHARES,
    POOL_YIELD,
    AccountId,
    AccountKind,
    AssetId,
    account_id,
    account_name,
    asset_symbol,
    claim_debt,
    claim_lend,
    cost,
    debt_share,
    is_of_amm,
    is_of_market,
    lend_share,
    market_of,
    pool_of,
    underlying,
)
from ledger.journal import JournalKind
from ledger.store import Store
from por import store as por_store
from por.epochs import Epoch, build_epoch, prove
from por.header import Header, Missed, hours_to_miss, missed_row
from por.image import Account, AmmLine, Image, MarketLine, PoolLine, Price, ReserveLine, TrialLine

if TYPE_CHECKING:
    from api.node import Node

CODE_VERSION = importlib.metadata.version("satchel-exchange")
USER_KINDS = {
    AccountKind.AVAILABLE: ("available", "in_orders", "provisional"),
    AccountKind.WITHDRAWING: ("withdrawing",),
}
"""Account kinds that are users' claims, with the leaf columns that show them.   [R-2, R-6]"""

SHARE_KINDS = (AccountKind.LENT, AccountKind.BORROWED)
"""Users' accounts in shares: the leaves show what they are worth, the pool's line how many there are.   [B-4]"""

MARKET_KINDS = (AccountKind.POSITION, AccountKind.CLAIM, AccountKind.UNSETTLED)
"""Users' accounts that the lines of perpetual markets, and the header's `unsettled`, show.   [A-2, S-13, V-2]"""

AMM_KINDS = (AccountKind.AMM_UNITS, AccountKind.AMM_CUSTODY, AccountKind.AMM_DEBT)
"""Users' accounts that the lines of liquidity pools show.   [X-14]"""

RESERVE_KINDS: dict[int, Literal["custody", "staked"]] = {
    AccountKind.CUSTODY: "custody",
    AccountKind.STAKED: "staked",
}

ROWS_KEPT = 100
TAKEN_IN_PLACE = 500
"""Subaccounts whose image is taken in place: a few ms, as long as a fork takes."""

_ASSET_MASK = (1 << ASSET_BITS) - 1


class Epochs:
    """Takes the image when the engine closes an epoch, builds and publishes it once its block is durable."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.log = por_store.load_log(node.database)
        self._secret = node.keyring.epoch_secret()
        self._images: dict[int, tuple[EpochClosed, Image | Forked]] = {}
        """Block height → the epoch and its image, or the child process that holds it, until it is built."""
        self._durable: asyncio.Queue[int] = asyncio.Queue()
        self._rows: dict[int, asyncio.Future[Header]] = {}
        """The engine's number → its row once published; the newest few, for whoever asked for an epoch."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="epoch")
        self._loaded: Epoch | None = None
        """The epoch that the last proof was of: a hundred thousand leaves take most of a second to read."""
        self._building: asyncio.Task[None] | None = None

    def covered_height(self, store: Store) -> int:
        """Height below which every closed epoch is built; recovery replays from there so that none is lost."""
        built = self.log.last.block_height if self.log.last is not None else -1
        table = schema.journal
        query = (
            sa.select(table.c.block_height)
            .where(table.c.kind == JournalKind.EPOCH_CLOSED)
            .order_by(table.c.seq.desc())
            .limit(1)
        )
        with store.engine.connect() as connection:
            closed = connection.execute(query).scalar_one_or_none()
        return built if closed is not None and closed > built else 1 << 62

    async def start(self) -> None:
        self._building = asyncio.create_task(self._build_all())

    async def stop(self) -> None:
        """Build what is waiting, then stop; once a build has failed nothing after it is built."""
        if self._building is not None:
            built = asyncio.create_task(self._durable.join())
            await asyncio.wait([built, self._building], return_when=asyncio.FIRST_COMPLETED)
            built.cancel()
            self._building.cancel()
        self._thread.shutdown()

    def take_image(self, block: Block, closed: EpochClosed, state: State) -> None:
        """Called while the state stands exactly at the end of the epoch's block.   [R-1]"""
        if self.log.last is not None and block.header.height <= self.log.last.block_height:
            return
        self._images[block.header.height] = closed, self._image(state, block, closed)
        self._rows[closed.epoch] = asyncio.get_running_loop().create_future()
        if len(self._rows) > ROWS_KEPT:
            del self._rows[next(iter(self._rows))]

    def on_block(self, block: Block) -> None:
        """The block is durable: an epoch taken at it may be published."""
        if block.header.height in self._images:
            self._durable.put_nowait(block.header.height)

    async def published(self, closed: EpochClosed) -> Header:
        """The row of an epoch that was just closed, once it is in the log."""
        return await asyncio.shield(self._rows[closed.epoch])

    async def settled(self) -> None:
        """Wait until every epoch whose block is durable is built."""
        await self._durable.join()

    async def proof(self, number: int, subaccount_id: int, known_sizes: list[int]) -> dict[str, Any]:
        """The inclusion proof of one subaccount in one epoch. KeyError, LeavesGone.   [R-22]"""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._prove, number, subaccount_id, known_sizes
        )

    def checkpoint(self) -> por_store.Checkpoint | None:
        return por_store.load_checkpoint(self._node.reader)

    def _prove(self, number: int, subaccount_id: int, known_sizes: list[int]) -> dict[str, Any]:
        if self._loaded is None or self._loaded.header.epoch != number:
            self._loaded = por_store.load_epoch(self._node.reader, number)
        epoch = self._loaded
        checkpoint = self.checkpoint()
        assert checkpoint is not None, f"epoch {number} without a checkpoint"
        log_proof = self.log.proof(epoch.header.epoch, checkpoint.text, checkpoint.public_key, known_sizes)
        return prove(epoch, subaccount_id, log_proof)

    async def _build_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            closed, image = self._images.pop(await self._durable.get())
            asked = self._rows.get(closed.epoch)
            try:
                row = await loop.run_in_executor(self._thread, self._build, closed, image)
            except Exception as error:
                # An epoch that cannot be published honestly stops the exchange rather than be skipped.  
                self._node.fail(error)
                if asked is not None:
                    asked.set_exception(Halted(str(error)))
                    asked.exception()  # Nobody may have waited for it; the failure itself is told by the node.
                return
            finally:
                self._durable.task_done()
            if asked is not None:
                asked.set_result(row)

    def _image(self, state: State, block: Block, closed: EpochClosed) -> Image | Forked:
        """The image itself while it takes less time than a fork does; else a child that takes and builds it."""
        if len(state.subaccounts) <= TAKEN_IN_PLACE:
            return image_of(state, block, closed)
        secret = self._secret

        def build(receive: Callable[[], Any]) -> Any:
            image = image_of(state, block, closed)
            previous = receive()
            return build_epoch(continued(image, previous), previous, secret)

        return Forked(build)

    def _build(self, closed: EpochClosed, image: Image | Forked) -> Header:
        """Build, recount and publish one epoch, after a row for every hour that has none.   [A-13, R-24]"""
        database, chain = self._node.database, self._node.sequencer.chain
        if closed.hour and self.log.last is not None:
            for hour in hours_to_miss(self.log.last, closed.hour):
                missed = missed_row(self.log.last, hour, "not closed")
                por_store.publish(database, self.log, missed, chain.sign, chain.public_key)
        previous = self.log.last
        if isinstance(image, Forked):
            epoch: Epoch = image.finish(previous)
        else:
            epoch = build_epoch(continued(image, previous), previous, self._secret)
        require_recount(self._node.reader, epoch.header, kind_name)
        por_store.publish(database, self.log, epoch, chain.sign, chain.public_key)
        return epoch.header


def continued(image: Image, previous: Header | Missed | None) -> Image:
    """The image with the number of accounts opened since the row before it; none ever closes."""
    before = previous.accounts if previous is not None else 0
    return msgspec.structs.replace(image, opened=len(image.accounts) - before)


def image_of(state: State, block: Block, closed: EpochClosed) -> Image:
    """Plain data of everything the epoch commits to, as the state stands.   [R-1, R-2, R-5, R-12]"""
    symbols = {asset_id: asset.symbol for asset_id, asset in state.assets.items()}
    at_us = block.header.at_us
    owed, system, reserves, shares = _balances(state, symbols)
    lines = (_market_line(state, market, shares) for market in perpetuals(state))
    markets = sorted(lines, key=lambda line: line.market)
    settles = liabilities.settles(state)
    return Image(
        exchange=state.exchange,
        hour=closed.hour or None,
        at_us=at_us,
        block_height=block.header.height,
        block_hash=block.hash,
        journal_root=block.header.journal_root,
        columns=liabilities.columns(state),
        accounts=[
            Account(subaccount_id, user_id, amounts, detail)
            for subaccount_id, user_id, amounts, detail in liabilities.accounts(state)
        ],
        opened=0,
        closed=0,
        # The prices that the leaves are valued at. A mark that has its data is of this very second; one that has none
        # is as old as the index it was made of.   [P-1, P-2, W-9]
        prices=sorted([*_asset_prices(state, at_us), *_market_prices(state, at_us)], key=lambda line: line.asset),
        price_max_age_us=0 if state.devnet else 3_600_000_000,
        parameters=liabilities.collateral_parameters(state),
        code_version=CODE_VERSION,
        trial_balance=[
            TrialLine(
                kind_name(kind),
                symbol,
                [f"{symbol}.{column}" for column in USER_KINDS[AccountKind(kind)]],
                atoms,
            )
            for (kind, symbol), atoms in sorted(owed.items())
        ],
        system=system,
        reserves=reserves,
        pools=sorted(
            (_pool_line(state, symbols[asset_id], asset_id, shares) for asset_id in state.pools),
            key=lambda line: line.asset,
        ),
        markets=markets,
        unsettled={symbols[state.usdc]: shares.total(AccountKind.UNSETTLED, state.usdc)} if settles else {},
        pool_holes=liabilities.pool_holes(state),
        amms=sorted((_amm_line(state, pool) for pool in state.amm_pools.values()), key=lambda line: line.pool),
        insurance_atoms=insurance_value(state),
    )


def _asset_prices(state: State, at_us: int) -> Iterator[Price]:
    for asset_id, asset in state.assets.items():
        if mark_price(state, asset_id):
            is_new = state.devnet or has_price(state, asset_id)
            yield Price(
                asset.symbol, mark_price(state, asset_id), at_us if is_new else state.price_at_us[asset_id]
            )


def _market_prices(state: State, at_us: int) -> Iterator[Price]:
    """Marks of perpetuals, in the quote asset: as new as what they were made of.   [P-2, R-5]"""
    for market in perpetuals(state):
        base = market.parameters.base_asset_id
        if market.mark_lot:
            is_new = state.devnet or market.pricing.has_data or has_price(state, base)
            yield Price(market.parameters.symbol, market.mark, at_us if is_new else state.price_at_us[base])


def kind_name(kind: int) -> str:
    """What a header calls a kind of account: a user's by the end of its path in the chart, any other by its name."""
    if kind in USER_KINDS or kind in SHARE_KINDS or kind in MARKET_KINDS or kind in AMM_KINDS:
        return CHART[kind].name.rsplit("/", 1)[-1]
    return AccountKind(kind).name.lower() if kind in CHART else f"unknown/{kind}"


def insurance_value(state: State) -> int:
    """What the insurance fund holds, what it lends included, in 1e-8 USD at mark prices, rounded down.   [R-7, L-8]"""
    value = 0
    for asset_id in state.assets:
        price = mark_price(state, asset_id)
        atoms = -state.balances.get(balance_key(INSURANCE_FUND, asset_id), 0)
        shares = -state.balances.get(balance_key(INSURANCE_FUND, lend_share(asset_id)), 0)
        if shares:
            now = lending.totals(state, state.pools[asset_id], state.at_us)
            atoms += claim_atoms(shares, now.lent, now.lend_shares)
        value += mul_div_down(atoms, price, 10 ** state.assets[asset_id].decimals * (PRICE_SCALE // USD_SCALE))
    return max(0, value)


def _pool_line(state: State, symbol: str, asset_id: AssetId, shares: _Holdings) -> PoolLine:
    """The asset's money market as the ledger has it: interest was posted when the epoch closed.   [B-14, R-6]"""

    def balance(account: AccountId, asset: AssetId = asset_id) -> int:
        return state.balances.get(balance_key(account, asset), 0)

    return PoolLine(
        asset=symbol,
        lent=-balance(POOL_LENT),
        borrowed=balance(POOL_BORROWED),
        fees=-balance(POOL_FEES),
        staked=sum(balance(account_id(AccountKind.STAKED, chain_id)) for chain_id in state.chains),
        yields=-balance(POOL_YIELD),
        lend_shares=balance(POOL_SHARES, lend_share(asset_id)),
        debt_shares=-balance(POOL_SHARES, debt_share(asset_id)),
        lenders=shares.holders[AccountKind.LENT, lend_share(asset_id)],
        borrowers=shares.holders[AccountKind.BORROWED, debt_share(asset_id)],
    )


def _market_line(state: State, market: Market, held: _Holdings) -> MarketLine:
    """A perpetual market as the ledger has it: costs and claims of all users, and what values them.   [R-6, V-5]"""
    parameters, market_id = market.parameters, market.parameters.market_id
    return MarketLine(
        market=parameters.symbol,
        base=state.assets[parameters.base_asset_id].symbol,
        quote=state.assets[parameters.quote_asset_id].symbol,
        lot=parameters.lot_atoms,
        mark=market.mark_lot,
        settled=market.settled,
        cost=held.total(AccountKind.POSITION, cost(market_id)),
        claim_lend=-held.total(AccountKind.CLAIM, claim_lend(market_id)),
        claim_debt=held.total(AccountKind.CLAIM, claim_debt(market_id)),
        winners=held.holders[AccountKind.CLAIM, claim_lend(market_id)],
        losers=held.holders[AccountKind.CLAIM, claim_debt(market_id)],
    )


def _amm_line(state: State, pool: AmmPool) -> AmmLine:
    """A liquidity pool as the engine reckons with it; the builder holds it against ledger and leaves.   [R-6, X-14]"""
    parameters = pool.parameters
    return AmmLine(
        pool=state.assets[parameters.pool_id].symbol,
        native=state.assets[parameters.native_asset_id].symbol,
        native_balance=pool.native_balance,
        external_balance=pool.external_balance,
        native_custody=pool.native_custody,
        external_custody=pool.external_custody,
        native_owed=pool.native_owed,
        external_owed=pool.external_owed,
        units=pool.units,
        native_fund=pool.native_fund,
        external_fund=pool.external_fund,
    )


class _Holdings:
    """Users' accounts that no line of the trial balance shows: per kind and asset their sum, and how many hold some."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[int, AssetId]] = Counter()
        self.holders: Counter[tuple[int, AssetId]] = Counter()

    def total(self, kind: AccountKind, asset_id: AssetId) -> int:
        """As posted, debits positive."""
        return self.totals[kind, asset_id]


def _balances(
    state: State, symbols: dict[int, str]
) -> tuple[dict[tuple[int, str], int], dict[str, int], list[ReserveLine], _Holdings]:
    """Every balance of the ledger, sorted into users' claims, system accounts and reserves; and what users have in
    shares, positions and unsettled equity.   [R-6, R-12, A-2, B-4]
    """
    owed = {(int(kind), symbol): 0 for kind in USER_KINDS for symbol in symbols.values()}
    system: dict[str, int] = {}
    reserves: list[ReserveLine] = []
    shares = _Holdings()
    markets = {market_id: market.parameters.symbol for market_id, market in state.markets.items()}
    for key, atoms in sorted(state.balances.items()):
        account, asset_id = key >> ASSET_BITS, key & _ASSET_MASK
        kind = account >> OWNER_BITS
        if kind in AMM_KINDS:
            continue
        if kind in SHARE_KINDS or kind in MARKET_KINDS:
            shares.totals[kind, asset_id] += atoms
            shares.holders[kind, asset_id] += atoms != 0
            continue
        if is_of_market(asset_id):
            name_of = markets[market_of(asset_id)]
        else:
            name_of = symbols[pool_of(asset_id) if is_of_amm(asset_id) else underlying(asset_id)]
        symbol = asset_symbol(asset_id, name_of)
        if kind in USER_KINDS:
            owed[kind, symbol] += atoms
            continue
        name = f"{symbol}.{kind_name(kind)}"
        system[name] = system.get(name, 0) + atoms
        if kind in RESERVE_KINDS and atoms:
            reserves.append(ReserveLine(symbol, RESERVE_KINDS[kind], account_name(account), atoms))
    return owed, system, reserves, shares
