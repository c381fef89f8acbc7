"""What an account spares lets orders pass that an exact summary would let pass, and none besides.   [M-9]"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from engine import clearing, margin, spare, spot_margin
from engine.clock import due
from engine.commands import (
    BorrowLend,
    CancelOrder,
    Command,
    ConfigureAsset,
    LendingSide,
    OrderType,
    PlaceOrder,
    SetPrices,
    Side,
    UpdateAccount,
)
from engine.parameters import PRICE_SCALE, RATE_SCALE
from engine.rejections import RejectReason
from ledger import compiled
from tests.engine.exchange import Exchange

SOL, USDC = 10**9, 10**6

pytestmark = pytest.mark.skipif(
    compiled.build() == "compiled", reason="calls between compiled modules cannot be listened to; SATCHEL_PURE=1"
)


class Run:
    """Six traders with little equity who place and cancel margin orders in SOL_USDC, some with debts."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        exchange = self.exchange = Exchange()
        self.usdc, self.sol = exchange.asset("USDC"), exchange.asset("SOL")
        self.market = exchange.market("SOL_USDC")
        sol = exchange.state.assets[self.sol]
        if seed % 3:
            # Margins whose root counts, and a weight that falls from the first SOL on.
            steep = replace(sol, weight_base=910_000_000, imf_factor=2_000_000, mmf_factor=1_000_000)
            exchange.do(ConfigureAsset(steep))
        exchange.do(SetPrices(((self.sol, 100 * PRICE_SCALE),)))
        self.traders = [exchange.user(f"trader {number}") for number in range(7)]
        for number, (subaccount, _key) in enumerate(self.traders):
            much = 1_000 if number == 6 else 1
            exchange.deposit(subaccount, "USDC", 1_000 * much * USDC)
            if number % 2 == 0:
                exchange.deposit(subaccount, "SOL", 10 * much * SOL)
        for asset_id, atoms in ((self.usdc, 500_000 * USDC), (self.sol, 5_000 * SOL)):
            self.send(6, BorrowLend(self.traders[6][0], asset_id, LendingSide.LEND, atoms))
        self.results: list[Any] = []

    def step(self) -> None:
        random, exchange = self.random, self.exchange
        dice = random.random()
        if dice < 0.02:
            exchange.do(SetPrices(((self.sol, random.randint(90, 110) * PRICE_SCALE),)))
        elif dice < 0.04:
            self.wait(random.choice([1, 2, 60]) * 1_000_000)
        else:
            number = random.randrange(6)
            self.send(number, self.command(self.traders[number][0]))

    def command(self, subaccount: int) -> Command:
        random, state = self.random, self.exchange.state
        dice = random.random()
        if dice < 0.03:
            asset_id, unit = random.choice([(self.usdc, USDC), (self.sol, SOL // 100)])
            return BorrowLend(subaccount, asset_id, random.choice(list(LendingSide)), random.randint(1, 300) * unit)
        if dice < 0.04:
            return UpdateAccount(subaccount, leverage_limit=random.choice([2, 5, 10]) * RATE_SCALE)
        orders = state.subaccounts[subaccount].orders
        if orders and dice < 0.3:
            return CancelOrder(subaccount, self.market, order_id=random.choice(list(orders)))
        borrows = random.random() < 0.8
        return PlaceOrder(
            subaccount,
            self.market,
            random.choice([Side.BID, Side.ASK]),
            OrderType.LIMIT,
            price_ticks=random.randint(9_900, 10_100),
            lots=random.choice([random.randint(1, 50), random.randint(1, 2_500)]),
            auto_borrow=borrows,
            auto_lend_redeem=borrows,
            auto_borrow_repay=random.random() < 0.5,
            auto_lend=borrows and random.random() < 0.1,
        )

    def wait(self, microseconds: int) -> None:
        """Time passes, and what falls due meanwhile runs."""
        exchange = self.exchange
        until_us = exchange.at_us + microseconds
        while (tick := due(exchange.state, until_us)) is not None:
            exchange.at_us, command = tick
            exchange.do(command)
        exchange.at_us = until_us

    def send(self, number: int, command: Command) -> None:
        exchange = self.exchange
        self.wait(self.random.choice([1, 700, 40_000]))
        outcome = exchange.attempt(command, exchange.signed(self.traders[number][1]))
        if hasattr(self, "results"):
            self.results.append((outcome.rejection and outcome.rejection.reason, outcome.journal, outcome.events))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_depends_on_what_is_remembered(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commands with and without: the same journal, events and refusals."""
    with_it = Run(seed)
    for _ in range(1_500):
        with_it.step()
    monkeypatch.setattr(spare, "remember", lambda *_given: None)
    without = Run(seed)
    for _ in range(1_500):
        without.step()
    assert with_it.results == without.results
    refused = [reason for reason, _journal, _events in with_it.results if reason is RejectReason.INSUFFICIENT_MARGIN]
    assert len(refused) > 10


@pytest.mark.parametrize("seed", range(6))
def test_whatever_passes_would_pass_an_exact_summary(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every pass of the bound the exact summary is made as well; what is left is never more than there is."""
    passed = {"rest": 0, "fill": 0}
    can_rest, can_fill, judge_leg = spare.can_rest, spare.can_fill, spot_margin._refusal

    def rests(state: Any, subaccount: Any, at_us: int, asset_id: int, atoms: int, fee_usd: int, loss: int) -> bool:
        if not can_rest(state, subaccount, at_us, asset_id, atoms, fee_usd, loss):
            return False
        after = margin.sums(state, subaccount, at_us, {asset_id: (0, 0, 0, atoms)}, is_strict=True)
        left = after.equity - loss - margin.open_order_loss(state, subaccount) - after.initial
        assert not after.is_unpriced and left > fee_usd
        assert left >= state.valuations.spare[subaccount.subaccount_id].usd
        passed["rest"] += 1
        return True

    def refusal(state: Any, at_us: int, market: Any, price: int, lots: int, leg: Any, *others: Any) -> Any:
        legs.append((leg, lots, others[-1]))
        return judge_leg(state, at_us, market, price, lots, leg, *others)

    def fills(state: Any, subaccount: Any, at_us: int, *given: int) -> bool:
        if not can_fill(state, subaccount, at_us, *given):
            return False
        leg, lots, is_maker = legs[-1]
        after = margin.sums(state, subaccount, at_us, leg.changes(), is_strict=True)
        loss = margin.open_order_loss(state, subaccount)
        if is_maker:
            left = leg.order.lots - leg.order.executed_lots
            loss -= margin.order_loss(state, leg.order, left) - margin.order_loss(state, leg.order, left - lots)
        assert not after.is_unpriced
        assert after.equity - loss - after.initial >= state.valuations.spare[subaccount.subaccount_id].usd > 0
        passed["fill"] += 1
        return True

    legs: list[Any] = []
    monkeypatch.setattr(clearing.spare, "can_rest", rests)
    monkeypatch.setattr(spot_margin.spare, "can_fill", fills)
    monkeypatch.setattr(spot_margin, "_refusal", refusal)
    run = Run(seed)
    for _ in range(1_500):
        run.step()
    assert passed["rest"] > 50 and passed["fill"] > 50
