"""A pool in the real engine, put into the state that a vector tells, and driven by commands.   [X-15]

Commands go through `apply`. Only the state that a sequence begins with, or goes on from after an explained difference,
is placed: the parameters and amounts of vectors are beyond what commands may ask for.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from engine import genesis
from engine.commands import CloseLong, Command, Genesis, OpenLong, RegisterKey, RunPoolEpochs, SwapAssets
from engine.events import LongClosed, LongOpened, Outcome, PoolEpochRan, PoolSwapped
from engine.parameters import PoolParameters
from engine.state import ASSET_BITS, AmmHolder, AmmPool, AmmPosition, State
from engine.transition import apply
from ledger.amounts import INT128_MAX
from ledger.blocks import SignedRequest
from ledger.chart import (
    AccountId,
    AssetId,
    amm_book,
    amm_fund,
    amm_pool,
    available,
    external_custody,
    external_owed,
    in_custody,
    native_custody,
    native_owed,
    owed_to_pools,
    pool_units,
    units_held,
)
from tools.conformance.image import FUND, MODULE, NATIVE, Image, Side, Terms, order

EXTERNAL = "SOL"
"""Which asset of the small genesis stands for a vector's external one."""
UNKNOWN_ASSET = 9_999
SECOND_US = 1_000_000
OUTSIDER = "~outsider"
"""Whose swaps a sequence has without saying who they are."""


class Run:
    """One exchange with one pool. A block of the original is a second here."""

    def __init__(self, image: Image, terms: Terms, **changes: Any) -> None:
        """`changes`: parameters of the pool that `terms` do not know."""
        self.state = State()
        self._do(0, _genesis())
        symbols = {asset.symbol: asset.asset_id for asset in self.state.assets.values()}
        self.native, self.external = symbols["ROWAN"], symbols[EXTERNAL]
        self.terms = terms
        self._changes = changes
        self.unsettled = Side(0, 0)
        self.block_interest = Side(0, 0)
        self._users: dict[str, int] = {}
        # The original works through positions in the order of their owners' addresses, ours in that of subaccounts.
        owners = {name for name in image.coins if name not in (FUND, MODULE)} | {OUTSIDER}
        for name in sorted(owners):
            self._register(name)
        self._requests = 0
        self.place(image, next_position=1)

    def place(self, image: Image, next_position: int) -> None:
        """Make state and balances what the image says; what the runner's own outsider has stays out of it."""
        state, told = self.state, image.pool
        for former in state.amm_positions.values():
            self._set(in_custody(former.subaccount_id), self._custody_id(former.is_native_collateral), 0)
            self._set(owed_to_pools(former.subaccount_id), self._owed_id(former.is_native_collateral), 0)
        pool = AmmPool(self._parameters())
        pool.native_balance, pool.external_balance = told["native_asset_balance"], told["external_asset_balance"]
        pool.native_custody, pool.external_custody = told["native_custody"], told["external_custody"]
        pool.native_owed, pool.external_owed = told["native_liabilities"], told["external_liabilities"]
        pool.native_fund, pool.external_fund = image.coins.get(FUND, Side(0, 0))
        pool.health, pool.rate, pool.units = told["health"], told["interest_rate"], 1
        state.amm_pools, state.amm_positions = {self.external: pool}, {}
        state.next_amm_position_id = next_position
        for position in image.positions:
            self._place_position(pool, position)
        self._place_balances(pool, image)
        self.block_interest = Side(told["block_interest_native"], told["block_interest_external"])
        self.unsettled = Side(told["unsettled_native_liabilities"], told["unsettled_external_liabilities"])

    def image(self) -> Image:
        """What the engine has, by the vector's names."""
        pool = self.state.amm_pools[self.external]
        told = {
            "native_asset_balance": pool.native_balance,
            "external_asset_balance": pool.external_balance,
            "native_custody": pool.native_custody,
            "external_custody": pool.external_custody,
            "native_liabilities": pool.native_owed,
            "external_liabilities": pool.external_owed,
            "block_interest_native": self.block_interest.native,
            "block_interest_external": self.block_interest.external,
            "unsettled_native_liabilities": self.unsettled.native,
            "unsettled_external_liabilities": self.unsettled.external,
            "health": pool.health,
            "interest_rate": pool.rate,
        }
        names = {number: name for name, number in self._users.items()}
        positions = [_shown(each, names[each.subaccount_id]) for each in self.state.amm_positions.values()]
        coins = {name: self._held(available(number)) for name, number in self._users.items() if name != OUTSIDER}
        coins[FUND] = self._held(amm_fund(self.external))
        coins[MODULE] = self._held(amm_pool(self.external))
        return Image(told, sorted(positions, key=order), coins)

    def open(
        self, height: int, owner: str, collateral: AssetId, custody: AssetId, atoms: int, leverage: int
    ) -> Outcome:
        """X-5, after the original's silent clamp of the leverage."""
        clamped = min(leverage, self.terms.leverage_max)
        return self.ask(height, owner, OpenLong(self.subaccount(owner), collateral, custody, atoms, clamped))

    def close(self, height: int, owner: str, position_id: int) -> Outcome:
        """X-10."""
        before = self.state.amm_positions.get(position_id)
        paid, fund = (before.paid_custody if before else 0), self._held(amm_fund(self.external))
        outcome = self.ask(height, owner, CloseLong(self.subaccount(owner), position_id))
        for closed in _closes(outcome):
            taken = closed.long.paid_custody_atoms - paid
            now = self._held(amm_fund(self.external))
            native, external = self.block_interest
            if closed.long.is_native_collateral:
                self.block_interest = Side(native, external + taken - (now.external - fund.external))
            else:
                self.block_interest = Side(native + taken - (now.native - fund.native), external)
        return outcome

    def swap(self, height: int, from_native: bool, atoms: int, owner: str = OUTSIDER) -> Outcome:
        """X-1. The outsider has what it pays."""
        paid, got = (self.native, self.external) if from_native else (self.external, self.native)
        number = self._users[owner]
        if owner == OUTSIDER:
            self._set(available(number), paid, -atoms)
        return self.ask(height, owner, SwapAssets(number, paid, got, atoms, min_received=0))

    def begin_block(self, height: int) -> list[int]:
        """An epoch, if one begins at this height; gives the ids of forced closes."""
        if height % self.terms.epoch_length:
            return []
        at_us = height * SECOND_US
        if self.external not in self.state.amm_pools:
            return []
        self.state.amm_pools[self.external].next_epoch_us = self.state.amm_epoch_due_us = at_us
        outcome = self._do(at_us, RunPoolEpochs())
        ran = next(event for event in outcome.events if isinstance(event, PoolEpochRan))
        self.block_interest = Side(ran.native_interest, ran.external_interest)
        return [closed.long.position_id for closed in _closes(outcome)]

    def subaccount(self, owner: str) -> int:
        """0 for somebody whom the exchange does not know."""
        return self._users.get(owner, 0)

    def asset(self, symbol: str, external: str) -> AssetId:
        """The native one, the pool's own (whatever the vector calls it), or one that the exchange does not know."""
        if symbol == NATIVE:
            return self.native
        return self.external if symbol == external else UNKNOWN_ASSET

    def give_units(self, owner: str, units: int) -> None:
        """All of the pool's units are this provider's."""
        pool = self.state.amm_pools[self.external]
        holder = AmmHolder(0, pool.earned)
        holder.units = pool.units = units
        pool.holders = {self._users[owner]: holder} if units else {}
        self._set(units_held(self._users[owner]), pool_units(self.external), -units)
        self._set(amm_book(self.external), pool_units(self.external), units)

    def remove_pool(self) -> None:
        """As if nobody had made one."""
        self.state.amm_pools = {}

    def held(self, owner: str) -> Side:
        return self._held(available(self._users[owner]))

    def ask(self, height: int, owner: str, command: Command) -> Outcome:
        """A command signed by `owner`, whom the exchange may not know."""
        self._requests += 1
        request = SignedRequest(_key(owner), self._requests.to_bytes(64, "big"), b"", 0, 0, 0)
        return self._do(height * SECOND_US, command, request)

    def operate(self, height: int, command: Command) -> Outcome:
        """An operator's command."""
        return self._do(height * SECOND_US, command)

    def _do(self, at_us: int, command: Command, request: SignedRequest | None = None) -> Outcome:
        outcome = apply(self.state, self.state.sequence + 1, at_us, command, request)
        for closed in _closes(outcome):
            native, external = self.unsettled
            lost, owed_native = closed.bad_debt_atoms, closed.long.is_native_collateral
            self.unsettled = Side(native + lost, external) if owed_native else Side(native, external + lost)
        return outcome

    def _register(self, name: str) -> None:
        self._users[name] = self._do(0, RegisterKey(_key(name))).reply.subaccount_id

    def _parameters(self) -> PoolParameters:
        """The vector's own; X-12, X-13 and what Satchel adds are off.   [X-15]"""
        terms = self.terms
        parameters = PoolParameters(
            pool_id=self.external,
            native_asset_id=self.native,
            fee_rate=terms.fee_rate,
            running_rate=terms.running_rate,
            takes_native_collateral=terms.takes_native_collateral,
            leverage_max=terms.leverage_max,
            rate_min=terms.rate_min,
            rate_max=terms.rate_max,
            rate_increase=terms.rate_increase,
            rate_decrease=terms.rate_decrease,
            gain_factor=terms.gain_factor,
            epoch_us=terms.epoch_length * SECOND_US,
            open_threshold=terms.open_threshold,
            removal_threshold=terms.removal_threshold,
            safety_factor=terms.safety_factor,
            interest_fund_share=terms.interest_fund_share,
            close_fund_share=terms.close_fund_share,
            pays_each_epoch=terms.pays_each_epoch,
            max_positions=terms.max_positions,
            lent_max=0,
            covers_losses=False,
            price_move_max=0,
            max_atoms=INT128_MAX,
        )
        return replace(parameters, **self._changes)

    def _place_position(self, pool: AmmPool, told: dict[str, Any]) -> None:
        number, is_native = self._users[told["owner"]], told["is_native"]
        position = AmmPosition(
            told["id"], number, self.external, is_native, told["collateral_amount"], told["leverage"],
            told["mtp_health"], 0,
        )  # fmt: skip
        position.owed, position.custody = told["liabilities"], told["custody_amount"]
        position.unpaid = told["interest_unpaid_collateral"]
        position.paid, position.paid_custody = told["interest_paid_collateral"], told["interest_paid_custody"]
        self.state.amm_positions[position.position_id] = pool.positions[position.position_id] = position
        self._move(in_custody(number), self._custody_id(is_native), -position.custody)
        self._move(owed_to_pools(number), self._owed_id(is_native), position.owed)

    def _place_balances(self, pool: AmmPool, image: Image) -> None:
        for name, held in image.coins.items():
            if name in (FUND, MODULE):
                continue
            self._set(available(self._users[name]), self.native, -held.native)
            self._set(available(self._users[name]), self.external, -held.external)
        coins, book, fund = amm_pool(self.external), amm_book(self.external), amm_fund(self.external)
        self._set(coins, self.native, -pool.native_balance - pool.native_custody)
        self._set(coins, self.external, -pool.external_balance - pool.external_custody)
        self._set(fund, self.native, -pool.native_fund)
        self._set(fund, self.external, -pool.external_fund)
        self._set(book, pool_units(self.external), pool.units)
        self._set(book, native_custody(self.external), pool.native_custody)
        self._set(book, external_custody(self.external), pool.external_custody)
        self._set(book, native_owed(self.external), -pool.native_owed)
        self._set(book, external_owed(self.external), -pool.external_owed)

    def _custody_id(self, is_native_collateral: bool) -> AssetId:
        return external_custody(self.external) if is_native_collateral else native_custody(self.external)

    def _owed_id(self, is_native_collateral: bool) -> AssetId:
        return native_owed(self.external) if is_native_collateral else external_owed(self.external)

    def _held(self, account: AccountId) -> Side:
        balances = self.state.balances
        return Side(*(-balances.get(account << ASSET_BITS | asset, 0) for asset in (self.native, self.external)))

    def _set(self, account: AccountId, asset: AssetId, atoms: int) -> None:
        self.state.balances[account << ASSET_BITS | asset] = atoms

    def _move(self, account: AccountId, asset: AssetId, atoms: int) -> None:
        key = account << ASSET_BITS | asset
        self.state.balances[key] = self.state.balances.get(key, 0) + atoms


@cache
def _genesis() -> Genesis:
    return Genesis(genesis.load("minimal"), bytes(32))


def _key(name: str) -> bytes:
    return sha256(name.encode()).digest()


def configure(run: Run, **changes: Any) -> None:
    """Parameters of the pool from now on."""
    pool = run.state.amm_pools.get(run.external)
    if pool is not None:
        pool.parameters = replace(pool.parameters, **changes)


def refusal(outcome: Outcome) -> str:
    """The reason of a refusal; empty for none."""
    return outcome.rejection.reason.name if outcome.rejection is not None else ""


def opened(outcome: Outcome) -> int:
    """The id of the position that was opened."""
    return sum(event.long.position_id for event in outcome.events if isinstance(event, LongOpened))


def received(outcome: Outcome) -> int:
    """What a swap paid out."""
    return sum(event.received_atoms for event in outcome.events if isinstance(event, PoolSwapped))


def proceeds(outcome: Outcome) -> int:
    """What a close swapped custody back to."""
    return sum(closed.repaid_atoms for closed in _closes(outcome))


def _closes(outcome: Outcome) -> list[LongClosed]:
    return [event for event in outcome.events if isinstance(event, LongClosed)]


def _shown(position: AmmPosition, owner: str) -> dict[str, Any]:
    return {
        "collateral_amount": position.collateral,
        "liabilities": position.owed,
        "custody_amount": position.custody,
        "interest_paid_collateral": position.paid,
        "interest_paid_custody": position.paid_custody,
        "interest_unpaid_collateral": position.unpaid,
        "leverage": position.leverage,
        "mtp_health": position.health,
        "id": position.position_id,
        "owner": owner,
        "is_native": position.is_native_collateral,
    }
