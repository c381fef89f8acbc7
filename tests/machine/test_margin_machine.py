"""A machine of borrowers and lenders: orders on margin, loans, prices, jumps of the clock; promises near their making.

B-14 and the bounds of claims and debts after every step; no accepted action leaves initial margin unmet; utilization
stays under its bound; whoever replays gets the same bytes.

[B-4, B-7, B-8, B-14, M-5, M-9, M-11, M-12, S-5, S-8, A-10]
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine import genesis, lending, limits, margin, snapshot
from engine.clock import due
from engine.commands import (
    BorrowLend,
    CancelAllOrders,
    Command,
    ConvertDust,
    CreditDeposit,
    FinalizeDeposit,
    Genesis,
    LendingSide,
    OpenSubaccount,
    OrderType,
    PlaceOrder,
    RegisterKey,
    RequestWithdrawal,
    SetPrices,
    Side,
    TimeInForce,
    Transfer,
    UpdateAccount,
    decode,
    encode,
)
from engine.events import LendingEvent, LendingMoved, Outcome
from engine.formulas.lending import claim_atoms, debt_atoms, is_over
from engine.parameters import PRICE_SCALE
from engine.state import ASSET_BITS, State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import AccountKind, debt_share, kind_of, lend_share
from ledger.journal import residues

START_US = 1_760_000_000_000_000
USDC, USDT, BTC, ETH, SOL = 1, 2, 3, 4, 5
DRAWS = (LendingEvent.BORROW, LendingEvent.LEND_REDEEM)
users = st.sampled_from((1, 2, 3, 4))
sides = st.sampled_from(list(Side))
amounts = st.one_of(st.integers(1, 200), st.sampled_from((1, 7, 1_000, 20_000)))
prices = st.sampled_from((14_000, 14_950, 15_000, 15_000, 15_000, 15_050, 16_000))
kinds = st.sampled_from(("GTC", "GTC", "GTC", "IOC", "FOK", "market", "quote"))
flows = st.lists(
    st.tuples(
        st.sampled_from((1, 2, 3, 4, 3)),
        st.sampled_from((SOL, SOL, ETH)),
        sides,
        prices,
        st.one_of(st.integers(1, 3_000), st.sampled_from((1, 100, 1_000, 2_000))),
        st.one_of(st.integers(0, 15), st.sampled_from((4, 6, 14))),
        kinds,
    ),
    min_size=2,
    max_size=10,
)
assets = st.sampled_from((USDC, SOL, ETH))


class Margin(RuleBasedStateMachine):
    """The exchange of devnet.toml with four traders, two of them subaccounts of one user."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.replayed = State()
        self.at_us = START_US
        self.requests = 0
        self.keys: dict[int, bytes] = {}
        self.accepted = 0
        self.last: Outcome

    @initialize()
    def begin(self) -> None:
        self.send(Genesis(genesis.load("devnet"), bytes(32)))
        self.assets = {each.symbol: number for number, each in self.state.assets.items()}
        assert (self.assets["USDC"], self.assets["SOL"], self.assets["ETH"]) == (USDC, SOL, ETH)
        self.market = {each.parameters.base_asset_id: number for number, each in self.state.markets.items()
                       if each.parameters.symbol in ("SOL_USDC", "ETH_USDC")}  # fmt: skip
        for number in (1, 2, 3):
            self.keys[number] = sha256(b"key %d" % number).digest()
            self.send(RegisterKey(self.keys[number]))
        self.keys[4] = sha256(b"key 4").digest()
        self.send(OpenSubaccount(1, self.keys[4]), 1)
        for number, asset, amount in ((1, USDC, 2_000), (2, SOL, 20), (4, ETH, 1), (4, USDC, 500)):
            self.deposit(number, asset, amount, True)
        for asset, amount in ((USDC, 60_000), (SOL, 400), (ETH, 20)):
            self.deposit(3, asset, amount, True)
        self.send(SetPrices(((SOL, 150 * PRICE_SCALE), (ETH, 3_000 * PRICE_SCALE))))
        for asset, amount in ((USDC, 30_000), (SOL, 200), (ETH, 10)):
            self.send(BorrowLend(3, asset, LendingSide.LEND, amount * self.unit(asset)), 3)

    # --- commands

    @rule(user=users, asset=assets, amount=amounts, final=st.booleans())
    def deposit(self, user: int, asset: int, amount: int, final: bool) -> None:
        tx = f"tx{self.state.next_deposit_id}"
        self.send(CreditDeposit(1, tx, 0, user, user, asset, amount * self.unit(asset), 1, "b", final))
        if not final and amount % 2:
            self.send(FinalizeDeposit(1, tx, 0))

    @rule(user=users, asset=assets, side=st.sampled_from(list(LendingSide)), amount=amounts, small=st.booleans())
    def loan(self, user: int, asset: int, side: LendingSide, amount: int, small: bool) -> None:
        step = self.state.assets[asset].step_atoms
        atoms = step * amount if small else amount * self.unit(asset)
        self.send(BorrowLend(user, asset, side, atoms), user)

    @rule(user=users, asset=assets, side=st.sampled_from(list(LendingSide)))
    def all_of_a_loan(self, user: int, asset: int, side: LendingSide) -> None:
        subaccount = self.state.subaccounts[user]
        owed = lending.debt(self.state, subaccount, asset, self.at_us + 1)
        claim = lending.claim(self.state, subaccount, asset, self.at_us + 1)
        self.send(BorrowLend(user, asset, side, max(1, owed if side is LendingSide.LEND else claim)), user)

    @rule(flow=flows)
    def trade(self, flow: list[tuple[int, int, Side, int, int, int, str]]) -> None:
        """Several orders in a row, so that they meet; the lender quotes without flags."""
        for user, base, side, price, lots, flags, kind in flow:
            # Of a lot of ETH, 0.001, twenty make one of SOL, 0.01: about as much money.
            ticks, size = (price, lots) if base == SOL else (price * 20, lots // 2 + 1)
            flags = 0 if user == 3 else flags
            fields: dict[str, Any] = {
                "auto_lend": bool(flags & 1), "auto_lend_redeem": bool(flags & 2), "auto_borrow": bool(flags & 4),
                "auto_borrow_repay": bool(flags & 8),
            }  # fmt: skip
            market = self.market[base]
            if kind == "market":
                order = PlaceOrder(user, market, side, OrderType.MARKET, TimeInForce.IOC, 0, size, **fields)
            elif kind == "quote":
                order = PlaceOrder(
                    user, market, side, OrderType.MARKET, quote_atoms=lots * 10**6, **fields
                )
            else:
                order = PlaceOrder(
                    user, market, side, OrderType.LIMIT, TimeInForce[kind], ticks, size, **fields
                )
            self.send(order, user)
            if self.last.rejection is None and order.time_in_force is TimeInForce.FOK:
                assert self.last.reply.executed_lots in (0, order.lots), "fill or kill was half filled"

    @rule(user=users)
    def cancel(self, user: int) -> None:
        self.send(CancelAllOrders(user), user)

    @rule(user=users, asset=assets, amount=amounts, borrow=st.booleans())
    def withdraw(self, user: int, asset: int, amount: int, borrow: bool) -> None:
        atoms = amount * self.unit(asset) // 10
        self.send(RequestWithdrawal(user, 1, asset, atoms, "A" * 44, "", borrow, borrow), user)

    @rule(amount=amounts, asset=assets, back=st.booleans(), borrow=st.booleans())
    def transfer(self, amount: int, asset: int, back: bool, borrow: bool) -> None:
        giver, taker = (4, 1) if back else (1, 4)
        self.send(Transfer(giver, taker, asset, amount * self.unit(asset) // 10, borrow), giver)

    @rule(user=users, lend=st.none() | st.booleans(), repay=st.none() | st.booleans(),
          leverage=st.none() | st.integers(1, 50))  # fmt: skip
    def account(self, user: int, lend: bool | None, repay: bool | None, leverage: int | None) -> None:
        limit = leverage * 10**9 if leverage is not None else None
        self.send(UpdateAccount(user, auto_lend=lend, auto_repay_borrows=repay, leverage_limit=limit), user)

    @rule(user=users)
    def dust(self, user: int) -> None:
        self.send(ConvertDust(user), user)

    @rule(asset=st.sampled_from((SOL, ETH, USDC)), change=st.integers(-12, 12))
    def price_moves(self, asset: int, change: int) -> None:
        old = self.state.prices.get(asset, PRICE_SCALE)
        if asset == USDC:
            change //= 4
        self.send(SetPrices(((asset, old * (100 + change) // 100),)))

    @rule(seconds=st.sampled_from((1, 1, 5, 60, 61, 3_600, 86_400)))
    def time_passes(self, seconds: int) -> None:
        until = self.at_us + seconds * 1_000_000
        while (tick := due(self.state, until)) is not None:
            self.at_us, command = tick
            self.send(command, moves_clock=False)
            assert self.last.rejection is None, self.last.rejection
        self.at_us = until

    @rule(user=users, asset=assets)
    def the_most_that_can_be_borrowed_is_exact(self, user: int, asset: int) -> None:
        """One step more is refused; the answer itself is accepted, on a copy.   [M-11]"""
        step = self.state.assets[asset].step_atoms
        at_us = self.at_us + 1
        most = limits.max_borrow(self.state, self.state.subaccounts[user], asset, at_us)
        for atoms, is_accepted in ((most, True), (most + step, False)):
            if atoms:
                copy = snapshot.load(snapshot.dump(self.state))
                command = BorrowLend(user, asset, LendingSide.BORROW, atoms)
                outcome = apply(copy, copy.sequence + 1, at_us, command, self.signed(user))
                assert (outcome.rejection is None) == is_accepted, (atoms, outcome.rejection)

    @rule(user=users, side=sides, price=prices, flags=st.integers(0, 15))
    def the_largest_order_is_exact(self, user: int, side: Side, price: int, flags: int) -> None:
        at_us = self.at_us + 1
        command = PlaceOrder(
            user, self.market[SOL], side, OrderType.LIMIT, price_ticks=price, lots=1, auto_lend=bool(flags & 1),
            auto_lend_redeem=bool(flags & 2), auto_borrow=bool(flags & 4), auto_borrow_repay=bool(flags & 8),
        )  # fmt: skip
        most = limits.max_order(self.state, command, at_us)
        for lots, is_accepted in ((most, True), (most + 1, False)):
            if lots:
                copy = snapshot.load(snapshot.dump(self.state))
                order = decode(encode(command))
                assert isinstance(order, PlaceOrder)
                order = PlaceOrder(**{**{name: getattr(order, name) for name in order.__struct_fields__}, "lots": lots})
                outcome = apply(copy, copy.sequence + 1, at_us, order, self.signed(user))
                assert (outcome.rejection is None) == is_accepted, (lots, outcome.rejection)

    @rule(user=users, asset=assets, borrow=st.booleans())
    def the_most_that_can_leave_is_exact(self, user: int, asset: int, borrow: bool) -> None:
        if user not in (1, 4):
            return
        at_us = self.at_us + 1
        most = limits.max_withdrawal(self.state, self.state.subaccounts[user], asset, at_us, borrow)
        for atoms, is_accepted in ((most, True), (most + 1, False)):
            if atoms:
                copy = snapshot.load(snapshot.dump(self.state))
                outcome = apply(
                    copy, copy.sequence + 1, at_us, Transfer(user, 5 - user, asset, atoms, borrow), self.signed(user)
                )
                # A transfer passes lent assets as shares, so the throttle may stop only a withdrawal.
                assert outcome.rejection is None or not is_accepted, (atoms, outcome.rejection)

    # --- how they are sent, and what is checked of every outcome

    def unit(self, asset: int) -> int:
        return 10 ** self.state.assets[asset].decimals

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
        before = self.utilizations() if self.state.pools else {}
        acting = self.state.subaccounts.get(user) if user is not None else None
        exposures = margin.exposures(self.state, acting, self.at_us) if acting is not None else {}
        self.last = outcome = apply(self.state, seq, self.at_us, command, request)
        # The one that replays remembers nothing of what accounts can spare: every judgement of it is exact.
        self.replayed.valuations.spare.clear()
        again = apply(self.replayed, seq, self.at_us, decode(encode(command)), request)
        assert (again.events, again.reply) == (outcome.events, outcome.reply)
        assert [(each.kind, each.memo, each.postings) for each in again.journal] == [
            (each.kind, each.memo, each.postings) for each in outcome.journal
        ]
        for entry in outcome.journal:
            assert not residues(entry), f"{entry} is out of balance by {residues(entry)}"
        if outcome.rejection is not None:
            return
        self.accepted += 1
        self.check_bounds(outcome, before)
        if acting is not None and not isinstance(command, CancelAllOrders | UpdateAccount):
            self.check_margin(acting, exposures)

    def utilizations(self) -> dict[int, tuple[int, int]]:
        found = {}
        for asset, pool in self.state.pools.items():
            now = lending.totals(self.state, pool, self.at_us)
            found[asset] = (now.borrowed, now.lent + now.fees)
        return found

    def check_bounds(self, outcome: Outcome, before: dict[int, tuple[int, int]]) -> None:
        """Where a command drew on a pool and raised its utilization, that stays under the bound.   [B-7]"""
        drawn = {each.asset_id for each in outcome.events if isinstance(each, LendingMoved) and each.event in DRAWS}
        for asset in sorted(drawn):
            pool = self.state.pools[asset]
            now = lending.totals(self.state, pool, self.at_us)
            borrowed, total = before[asset]
            if now.borrowed * total > borrowed * (now.lent + now.fees):
                assert not is_over(now.borrowed, now.lent, now.fees, pool.bound), f"asset {asset} past its bound"

    def check_margin(self, subaccount: Any, before: dict[int, int]) -> None:
        """Whoever acted has margin for what is open, unless no exposure has grown.   [M-5, M-9]"""
        now = margin.sums(self.state, subaccount, self.at_us)
        if not now.is_exposed:
            return
        after = margin.exposures(self.state, subaccount, self.at_us)
        if all(atoms <= before.get(asset, 0) for asset, atoms in after.items()):
            return
        assert now.equity >= now.initial, f"subaccount {subaccount.subaccount_id}: {now}"

    # --- promises that hold after every step

    @invariant()
    def pools_hold_what_they_owe(self) -> None:
        for asset, pool in self.state.pools.items():
            now = lending.totals(self.state, pool, self.at_us)
            assert now.idle >= 0, f"asset {asset}: idle {now.idle}"
            claims = debts = lenders = debtors = 0
            for key, atoms in self.state.balances.items():
                kind, share = kind_of(key >> ASSET_BITS), key & (1 << ASSET_BITS) - 1
                if kind == AccountKind.LENT and share == lend_share(asset) and atoms:
                    claims += claim_atoms(-atoms, now.lent, now.lend_shares)
                    lenders += 1
                if kind == AccountKind.BORROWED and share == debt_share(asset) and atoms:
                    debts += debt_atoms(atoms, now.borrowed, now.debt_shares)
                    debtors += 1
            assert now.lent - lenders <= claims <= now.lent or (claims == now.lent == 0)
            assert now.borrowed <= debts <= now.borrowed + debtors

    @invariant()
    def nobody_holds_less_than_nothing(self) -> None:
        totals: dict[int, int] = {}
        for key, amount in self.state.balances.items():
            asset = key & (1 << ASSET_BITS) - 1
            totals[asset] = totals.get(asset, 0) + amount
            kind = kind_of(key >> ASSET_BITS)
            if kind in (AccountKind.AVAILABLE, AccountKind.LENT, AccountKind.WITHDRAWING):
                assert amount <= 0, (kind, key, amount)
            if kind == AccountKind.BORROWED:
                assert amount >= 0, (kind, key, amount)
        assert not any(totals.values()), totals

    @invariant()
    def loans_are_where_shares_are(self) -> None:
        for number, subaccount in self.state.subaccounts.items():
            for kind, loans, share in (
                (AccountKind.LENT, subaccount.lent, lend_share),
                (AccountKind.BORROWED, subaccount.debts, debt_share),
            ):
                held = {
                    asset
                    for asset in self.state.pools
                    if self.state.balances.get((kind << 40 | number) << ASSET_BITS | share(asset), 0)
                }
                assert held == set(loans)
            assert subaccount.margined == bool(subaccount.debts or subaccount.promised or subaccount.receivables)

    def teardown(self) -> None:
        content = snapshot.dump(self.state)
        assert snapshot.dump(self.replayed) == content
        assert snapshot.dump(snapshot.load(content)) == content


def machine(examples: int, steps: int) -> Any:
    case = Margin.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case


TestMargin = machine(examples=60, steps=40)
