"""A machine of perpetuals: positions, ticks, claims, gaps, the whole ladder; what must hold is asked after every step.

Conservation of everything the ledger holds, Σ PnL of each market zero, the fund flat, whoever is in liquidation is
known to be, and a twin that remembers nothing of what was computed before gives the same bytes.

[A-2, A-10, A-13, C-5, L-1, L-9, M-6, S-10 … S-14, V-5]
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine import genesis, lending, liquidation, margin, snapshot
from engine.clock import due
from engine.commands import (
    AcceptQuote,
    BorrowLend,
    Bracket,
    CancelAllOrders,
    Command,
    CreateStrategy,
    CreditDeposit,
    FundCustody,
    FundInsurance,
    Genesis,
    LendingSide,
    OrderType,
    PlaceOrder,
    RegisterBackstop,
    RegisterKey,
    RequestWithdrawal,
    SelfTrade,
    SetPrices,
    Side,
    SubmitQuote,
    SubmitRfq,
    TimeInForce,
    TriggerBy,
    UpdateAccount,
    decode,
    encode,
)
from engine.events import Outcome
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from engine.pricing import has_price
from engine.state import State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import ROUNDING, cost
from ledger.invariants import RunningTotals
from ledger.journal import GENESIS_HASH, seal

START_US = 1_760_000_000_000_000
USDC, BTC, SOL = 1, 3, 5
TRADERS = (1, 2, 3, 4)
MAKER, PROVIDER = 5, 6
users = st.sampled_from(TRADERS)
sides = st.sampled_from(list(Side))
sizes = st.one_of(st.integers(1, 3_000), st.sampled_from((1, 100, 2_000, 5_000, 9_000)))
shifts = st.sampled_from((-200, -20, -3, 0, 0, 0, 3, 20, 200))
"""Tenths of a per mille from the mark."""


class Perpetuals(RuleBasedStateMachine):
    """The exchange of devnet.toml with four traders, a maker who also lends, and a backstop provider."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.replayed = State()
        self.at_us = START_US
        self.requests = 0
        self.keys: dict[int, bytes] = {}
        self.totals = RunningTotals()
        self.head, self.journal_seq = GENESIS_HASH, 0
        self.last: Outcome

    @initialize(
        provides=st.booleans(), insures=st.booleans(),
        openings=st.tuples(*(st.sampled_from((0, 1, 3, 8, 15)) for _ in TRADERS)), longs=st.integers(0, 15),
    )  # fmt: skip
    def begin(self, provides: bool, insures: bool, openings: tuple[int, ...], longs: int) -> None:
        self.send(Genesis(genesis.load("devnet"), bytes(32)))
        self.markets = {each.parameters.symbol: number for number, each in self.state.markets.items()}
        for number in (*TRADERS, MAKER, PROVIDER):
            self.keys[number] = sha256(b"key %d" % number).digest()
            self.send(RegisterKey(self.keys[number]))
        self.send(SetPrices(((SOL, 150 * PRICE_SCALE), (BTC, 40_000 * PRICE_SCALE))))
        for number, asset, amount in (
            (1, USDC, 1_000), (2, USDC, 3_000), (3, USDC, 100), (3, SOL, 10), (4, SOL, 30), (MAKER, USDC, 100_000),
            (MAKER, SOL, 500), (MAKER, BTC, 2), (PROVIDER, USDC, 2_000),
        ):  # fmt: skip
            self.deposit(number, asset, amount)
        for asset, amount in ((USDC, 20_000), (SOL, 100)):
            self.send(BorrowLend(MAKER, asset, LendingSide.LEND, amount * self.unit(asset)), MAKER)
        for number in TRADERS:
            self.send(UpdateAccount(number, leverage_limit=20 * RATE_SCALE), number)
        if provides:
            self.send(RegisterBackstop(PROVIDER, 5_000 * USD_SCALE), PROVIDER)
        if insures:
            self.send(FundCustody(1, "own", 0, USDC, 500 * 10**6))
            self.send(FundInsurance(200 * 10**6))
        # Most of them begin with a position of up to 15 times what they have.
        self.quote(1, "SOL_USDC_PERP", 60_000)
        for number, leverage in zip(TRADERS, openings, strict=True):
            equity = margin.sums(self.state, self.state.subaccounts[number], self.at_us).equity // USD_SCALE
            side, away = (Side.BID, 20) if longs >> number - 1 & 1 else (Side.ASK, -20)
            if leverage:
                self.order(number, "SOL_USDC_PERP", side, away, equity * leverage * 100 // 150, TimeInForce.IOC)

    @rule(user=users, asset=st.sampled_from((USDC, SOL)), amount=st.integers(1, 300))
    def deposit(self, user: int, asset: int, amount: int) -> None:
        tx = f"tx{self.state.next_deposit_id}"
        self.send(CreditDeposit(1, tx, 0, user, user, asset, amount * self.unit(asset), 1, "b", True))

    @rule(shift=st.sampled_from((1, 5, 40)), market=st.sampled_from(("SOL_USDC_PERP", "SOL_USDC", "BTC_USDC_PERP")),
          lots=st.sampled_from((50, 500, 9_000)))  # fmt: skip
    def quote(self, shift: int, market: str, lots: int) -> None:
        self.send(CancelAllOrders(MAKER), MAKER)
        for side, sign in ((Side.BID, -1), (Side.ASK, 1)):
            self.order(MAKER, market, side, sign * shift, lots)

    @rule()
    def makers_leave(self) -> None:
        self.send(CancelAllOrders(MAKER), MAKER)

    @rule(
        flow=st.lists(
            st.tuples(users, st.sampled_from(("SOL_USDC_PERP", "SOL_USDC_PERP", "BTC_USDC_PERP")), sides, shifts, sizes,
                      st.booleans()), min_size=1, max_size=8
        )
    )  # fmt: skip
    def trade(self, flow: list[tuple[int, str, Side, int, int, bool]]) -> None:
        for user, market, side, shift, lots, reduces in flow:
            self.order(user, market, side, shift, lots, reduce_only=reduces and lots % 3 == 0)

    @rule(user=users, side=sides, lots=sizes)
    def spot_on_margin(self, user: int, side: Side, lots: int) -> None:
        self.order(user, "SOL_USDC", side, 200 if side is Side.BID else -200, lots, TimeInForce.IOC,
                   auto_borrow=True, auto_lend_redeem=True, auto_borrow_repay=True)  # fmt: skip

    @rule(user=users, side=sides, away=st.sampled_from((-300, -30, 30, 300)), lots=sizes, by=st.sampled_from(TriggerBy),
          brackets=st.booleans())  # fmt: skip
    def wait_for_a_price(self, user: int, side: Side, away: int, lots: int, by: TriggerBy, brackets: bool) -> None:
        at = self.ticks("SOL_USDC_PERP", away)
        if brackets:
            up, down = self.ticks("SOL_USDC_PERP", 100), self.ticks("SOL_USDC_PERP", -100)
            profit, loss = (up, down) if side is Side.BID else (down, up)
            self.order(user, "SOL_USDC_PERP", side, away, lots, take_profit=Bracket(TriggerBy.MARK, profit),
                       stop_loss=Bracket(TriggerBy.MARK, loss))  # fmt: skip
        elif by is not TriggerBy.NONE:
            command = PlaceOrder(user, self.markets["SOL_USDC_PERP"], side, OrderType.MARKET, TimeInForce.IOC,
                                 lots=lots, trigger_by=by, trigger_price_ticks=at,
                                 reduce_only=lots % 2 == 0)  # fmt: skip
            self.send(command, user)

    @rule(user=users, side=sides, shift=shifts, lots=sizes, mode=st.sampled_from(list(SelfTrade)),
          reduces=st.booleans())  # fmt: skip
    def fill_or_kill(self, user: int, side: Side, shift: int, lots: int, mode: SelfTrade, reduces: bool) -> None:
        """Whole or not at all, whatever the makers' margins are by then.   [S-7]"""
        self.order(user, "SOL_USDC_PERP", side, shift, lots, TimeInForce.FOK, self_trade=mode, reduce_only=reduces)
        if self.last.rejection is None:
            assert self.last.reply.executed_lots in (0, lots), self.last.reply

    @rule(user=users, side=sides, lots=sizes, shift=st.none() | shifts,
          market=st.sampled_from(("SOL_USDC_PERP", "SOL_USDC")))  # fmt: skip
    def schedule(self, user: int, side: Side, lots: int, shift: int | None, market: str) -> None:
        ticks = 0 if shift is None else self.ticks(market, shift)
        command = CreateStrategy(user, self.markets[market], side, 10 * lots, 10_000, 1_000, ticks, lots % 2 == 0)
        self.send(command, user)

    @rule(user=users, maker=users, side=sides, lots=sizes, shift=shifts,
          market=st.sampled_from(("SOL_USDC_PERP", "SOL_USDC")))  # fmt: skip
    def request_quotes(self, user: int, maker: int, side: Side, lots: int, shift: int, market: str) -> None:
        """Asked, quoted at or off the mark, accepted if both can.   [S-7, M-12]"""
        self.send(SubmitRfq(user, self.markets[market], side, lots), user)
        if self.last.rejection is not None:
            return
        rfq_id, price = self.last.reply.rfq_id, self.ticks(market, shift)
        self.send(SubmitQuote(maker, rfq_id, price, price, auto_borrow=True, auto_lend_redeem=True), maker)
        if self.last.rejection is None:
            self.send(AcceptQuote(user, self.last.reply.quote_id), user)

    @rule(user=users, asset=st.sampled_from((USDC, SOL)), side=st.sampled_from(list(LendingSide)),
          amount=st.integers(1, 300))  # fmt: skip
    def loan(self, user: int, asset: int, side: LendingSide, amount: int) -> None:
        self.send(BorrowLend(user, asset, side, amount * self.unit(asset)), user)

    @rule(user=users, amount=st.integers(1, 500))
    def withdraw(self, user: int, amount: int) -> None:
        self.send(RequestWithdrawal(user, 1, USDC, amount * 10**6, "A" * 44, "", True, True), user)

    @rule(user=users, lend=st.none() | st.booleans(), borrow=st.none() | st.booleans(), real=st.none() | st.booleans())
    def settings_change(self, user: int, lend: bool | None, borrow: bool | None, real: bool | None) -> None:
        command = UpdateAccount(user, auto_lend=lend, auto_borrow_settlements=borrow, auto_realize_pnl=real)
        self.send(command, user)

    @rule(change=st.sampled_from((-60, -30, -12, -5, -2, -1, 1, 2, 5, 12, 30, 60)), both=st.booleans())
    def price_moves(self, change: int, both: bool) -> None:
        prices = [(SOL, self.state.prices[SOL] * (100 + change) // 100)]
        if both:
            prices.append((BTC, self.state.prices[BTC] * (100 + change // 2) // 100))
        if prices[0][1] < 10**6 * PRICE_SCALE:
            self.send(SetPrices(tuple(prices)))

    @rule(seconds=st.sampled_from((1, 3, 10, 11, 61, 400, 3_600, 7_300)))
    def time_passes(self, seconds: int) -> None:
        until = self.at_us + seconds * 1_000_000
        for _ in range(10_000):
            tick = due(self.state, until)
            if tick is None:
                break
            self.at_us = max(self.at_us, tick[0])
            self.send(tick[1], moves_clock=False)
            assert self.last.rejection is None, self.last.rejection
        else:
            raise AssertionError("what is due never ends")
        self.at_us = until

    # --- how they are sent

    def unit(self, asset: int) -> int:
        return 10 ** self.state.assets[asset].decimals

    def ticks(self, symbol: str, shift: int) -> int:
        market = self.state.markets[self.markets[symbol]]
        mark = market.mark or self.state.prices[market.parameters.base_asset_id]
        return max(1, mark * (10_000 + shift) // (10_000 * market.parameters.tick_price))

    def order(
        self, user: int, symbol: str, side: Side, shift: int, lots: int, tif: TimeInForce = TimeInForce.GTC,
        **fields: Any
    ) -> None:  # fmt: skip
        price = self.ticks(symbol, shift)
        command = PlaceOrder(user, self.markets[symbol], side, OrderType.LIMIT, tif, price, lots, **fields)
        self.send(command, user)

    def signed(self, user: int) -> SignedRequest:
        self.requests += 1
        signature = sha256(b"%d" % self.requests).digest() * 2
        at_ms = self.at_us // 1_000
        return SignedRequest(self.keys[user], signature, b"", at_ms, 5_000, at_ms)

    def send(self, command: Command, user: int | None = None, moves_clock: bool = True) -> None:
        """Apply to the exchange and, from its encoded bytes, to the one that replays; both must say the same."""
        request = self.signed(user) if user is not None else None
        if moves_clock:
            self.at_us += 1
        seq = self.state.sequence + 1
        self.last = outcome = apply(self.state, seq, self.at_us, command, request)
        # The twin remembers nothing: neither what accounts spare nor what sweeps found.
        if seq % 7 == 0:
            self.replayed = snapshot.load(snapshot.dump(self.replayed))
        self.replayed.valuations.spare.clear()
        again = apply(self.replayed, seq, self.at_us, decode(encode(command)), request)
        assert (again.events, again.reply) == (outcome.events, outcome.reply)
        assert [(each.kind, each.memo, each.postings, each.batches) for each in again.journal] == [
            (each.kind, each.memo, each.postings, each.batches) for each in outcome.journal
        ]
        sealed = []
        for entry in outcome.journal:
            self.journal_seq += 1
            sealed.append(seal(self.head, self.journal_seq, seq, self.at_us, entry))
            self.head = sealed[-1].hash
        self.totals.add(sealed)
        self.totals.require()

    # --- what must hold

    @invariant()
    def gains_are_losses(self) -> None:
        """Σ PnL of a market is zero, but for what rounding keeps; nobody is long of nobody.   [A-13, C-5]"""
        for number, market in self.state.markets.items():
            positions = market.holders.values()
            assert sum(held.lots for held in positions) == 0
            kept = -self.state.balances.get(ROUNDING << 24 | cost(number), 0)
            assert sum(margin.unrealized_atoms(held) for held in positions) + kept == 0
            assert market.open_interest == sum(max(0, held.lots) for held in positions)

    @invariant()
    def who_is_in_liquidation_is_known(self) -> None:
        """L-1: found in the block that pushed it over. Who holds what has no price is let be.   [P-2]"""
        state = self.state
        for number, account in state.subaccounts.items():
            if number in state.liquidations or not margin.sums(state, account, state.at_us).is_in_liquidation:
                continue
            if not liquidation.has_anything_to_liquidate(state, account, state.at_us):
                continue
            unpriced = [asset for asset in account.asset_ids if not has_price(state, asset)]
            unpriced += [held.market for held in account.positions.values() if not held.market.pricing.has_data]
            assert unpriced, f"subaccount {number}: {margin.sums(state, account, state.at_us)}"

    @invariant()
    def pools_can_pay(self) -> None:
        for pool in self.state.pools.values():
            assert lending.totals(self.state, pool, self.state.at_us).idle >= 0

    def teardown(self) -> None:
        assert snapshot.dump(snapshot.load(snapshot.dump(self.state))) == snapshot.dump(self.state)
        assert snapshot.dump(self.replayed) == snapshot.dump(self.state)


Perpetuals.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPerpetuals = Perpetuals.TestCase
