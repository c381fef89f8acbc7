"""One machine with a rule for every kind of command and an invariant for every promise, near where it is made.

Commands go through `apply` as the sequencer would send them; a second exchange replays every command, a third one is
restored from a snapshot now and then. All three must agree, byte for byte.   [A-1, A-6, A-10, A-13, S-1, S-7]
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine import genesis, liabilities, snapshot
from engine.book import queue
from engine.commands import (
    AddKey,
    CancelAllOrders,
    CancelOrder,
    CloseEpoch,
    Command,
    ConfigureAsset,
    ConfigureFees,
    ConfigureMarket,
    CreditDeposit,
    FinalizeDeposit,
    FundCustody,
    Genesis,
    GrantTier,
    OpenSubaccount,
    OrderType,
    OrphanDeposit,
    PlaceOrder,
    PlaceOrders,
    RecordSweep,
    RegisterKey,
    RejectWithdrawal,
    ReleaseWithdrawal,
    RequestWithdrawal,
    RestoreDeposit,
    ReverseDeposit,
    RevokeKey,
    SelfTrade,
    SetPrices,
    SettleWithdrawal,
    Side,
    StopWithdrawals,
    TimeInForce,
    Transfer,
    UpdateAccount,
    decode,
    encode,
)
from engine.events import BalanceChanged, BookLevel, OrderAccepted, OrderView, Outcome, Trade
from engine.parameters import PRICE_SCALE, BookState
from engine.state import ASSET_BITS, State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import AccountKind, account_type, kind_of, owner_of
from ledger.journal import residues, seal

START_US = 1_760_000_000_000_000
ASSETS = (1, 2, 3)
SOL_USDC, ROWAN_USDC = 1, 2
HOLDINGS = (AccountKind.AVAILABLE, AccountKind.WITHDRAWING)

sides = st.sampled_from(list(Side))
modes = st.sampled_from(list(SelfTrade))
forces = st.sampled_from(list(TimeInForce))
users = st.sampled_from((1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 0))
"""Mostly the three that hold something; 4 may exist, 0 never does."""
# Few prices, so that orders meet; 0 and beyond the band, so that they are refused.
prices = st.sampled_from((9, 10, 11, 9, 10, 11, 8, 12, 13, 15, 0, 40))
lots = st.sampled_from((1, 2, 3, 5, 7, 12, 30, 0, -1, 101))
kinds = st.sampled_from(
    (("limit", TimeInForce.GTC),) * 6
    + tuple((kind, force) for kind in ("limit", "post", "market", "quote") for force in TimeInForce)
)
flows = st.lists(st.tuples(users, sides, prices, lots, kinds, modes), min_size=1, max_size=12)
atoms = st.one_of(st.integers(1, 500), st.integers(-1, 3), st.just(2**63))


class Exchange(RuleBasedStateMachine):
    """The exchange of minimal.toml: small numbers, so that fees, limits and bounds are all reached."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.replayed = State()
        self.at_us = START_US
        self.sums: dict[int, int] = {}
        self.head = bytes(32)
        self.replayed_head = bytes(32)
        self.journal = 0
        self.requests = 0
        self.trades = 0

    @initialize()
    def begin(self) -> None:
        self.send(Genesis(genesis.load("minimal"), bytes(32)))
        for number in range(3):
            self.send(RegisterKey(self.key(number)))
            for asset, amount in ((1, 5_000), (2, 20_000), (3, 60)):
                self.send(
                    CreditDeposit(1, f"first{number}", asset, number + 1, number + 1, asset, amount, 1, "b", True)
                )

    # --- commands

    @rule(
        user=users,
        market=st.sampled_from((SOL_USDC, ROWAN_USDC, 3, 9)),
        side=sides,
        price=prices,
        lots=lots,
        force=forces,
        post_only=st.booleans(),
        mode=modes,
        client=st.none() | st.integers(0, 3),
    )
    def limit(
        self,
        user: int,
        market: int,
        side: Side,
        price: int,
        lots: int,
        force: TimeInForce,
        post_only: bool,
        mode: SelfTrade,
        client: int | None,
    ) -> None:
        post_only = post_only and force is TimeInForce.GTC
        self.send(
            PlaceOrder(
                self.pick(user), market, side, OrderType.LIMIT, force, price, lots, 0, post_only, False, mode, client
            ),
            user,
        )

    @rule(user=users, side=sides, lots=lots, force=forces, mode=modes)
    def market_by_lots(self, user: int, side: Side, lots: int, force: TimeInForce, mode: SelfTrade) -> None:
        self.send(
            PlaceOrder(self.pick(user), SOL_USDC, side, OrderType.MARKET, force, lots=lots, self_trade=mode), user
        )

    @rule(user=users, side=sides, quote=atoms, force=forces, mode=modes)
    def market_by_quote(self, user: int, side: Side, quote: int, force: TimeInForce, mode: SelfTrade) -> None:
        order = PlaceOrder(
            self.pick(user), SOL_USDC, side, OrderType.MARKET, force, quote_atoms=min(quote, 2**62), self_trade=mode
        )
        self.send(order, user)

    def trade(self, flow: list[tuple[Any, ...]]) -> None:
        """Several users' orders one after the other: what fills a book and crosses it."""
        for user, side, price, amount, (kind, force), mode in flow:
            limit = kind in ("limit", "post")
            self.send(
                PlaceOrder(
                    self.pick(user), SOL_USDC, side, OrderType.LIMIT if limit else OrderType.MARKET,
                    TimeInForce.GTC if kind == "post" else force, price if limit else 0,
                    0 if kind == "quote" else amount,
                    40 * amount if kind == "quote" else 0, kind == "post", False, mode,
                ),
                user,
            )  # fmt: skip
            self.hold_promises()

    # Hypothesis picks rules evenly; a market trades more than it is configured.
    flow = rule(flow=flows)(trade)
    flow_2 = rule(flow=flows)(trade)
    flow_3 = rule(flow=flows)(trade)
    flow_4 = rule(flow=flows)(trade)

    @rule(user=users, batch=st.lists(st.tuples(sides, prices, lots, modes), max_size=4))
    def batch(self, user: int, batch: list[tuple[Side, int, int, SelfTrade]]) -> None:
        owner = self.pick(user)
        orders = tuple(
            PlaceOrder(owner, SOL_USDC, side, OrderType.LIMIT, price_ticks=price, lots=lots, self_trade=mode)
            for side, price, lots, mode in batch
        )
        self.send(PlaceOrders(orders), user)

    @rule(user=users, which=st.integers(0, 8), by_client=st.sampled_from((False, False, True)))
    def cancel(self, user: int, which: int, by_client: bool) -> None:
        owner = self.state.subaccounts.get(self.pick(user))
        open_orders = list(owner.orders) if owner is not None else []
        order = open_orders[which % len(open_orders)] if open_orders else which
        self.send(
            CancelOrder(self.pick(user), SOL_USDC, None if by_client else order, which if by_client else None), user
        )

    @rule(user=users, market=st.sampled_from((0, SOL_USDC, ROWAN_USDC, 9)))
    def cancel_all(self, user: int, market: int) -> None:
        self.send(CancelAllOrders(self.pick(user), market), user)

    @rule(user=users, asset=st.sampled_from((*ASSETS, 9)), amount=atoms, final=st.booleans(), tx=st.integers(0, 2))
    def deposit(self, user: int, asset: int, amount: int, final: bool, tx: int) -> None:
        owner = self.pick(user)
        self.send(CreditDeposit(1, f"t{tx}", 0, owner, owner, asset, min(amount, 2**62), 1, "b", final))

    @rule(tx=st.integers(0, 2), what=st.sampled_from((FinalizeDeposit, OrphanDeposit, RestoreDeposit, ReverseDeposit)))
    def deposit_changes(self, tx: int, what: type) -> None:
        self.send(what(1, f"t{tx}", 0))

    @rule(user=users, asset=st.sampled_from(ASSETS), amount=atoms, client=st.sampled_from(("", "k")))
    def withdraw(self, user: int, asset: int, amount: int, client: str) -> None:
        for plenty in (min(amount, 2**62), 250):
            self.send(RequestWithdrawal(self.pick(user), 1, asset, plenty, "A" * 44, client), user)

    @rule(number=st.integers(1, 3), what=st.sampled_from(("reject", "settle", "release")), fee=st.integers(0, 2))
    def withdrawal_changes(self, number: int, what: str, fee: int) -> None:
        commands = {
            "reject": RejectWithdrawal(number, "screening"),
            "settle": SettleWithdrawal(number, f"out{number}", 2, fee),
            "release": ReleaseWithdrawal(number, f"out{number}", "failed", 2, fee),
        }
        self.send(commands[what])

    @rule(wallet=st.integers(1, 4), asset=st.sampled_from(ASSETS), amount=st.integers(1, 50), tx=st.integers(0, 99))
    def custody(self, wallet: int, asset: int, amount: int, tx: int) -> None:
        self.send(FundCustody(1, f"f{tx}", 0, asset, amount))
        self.send(RecordSweep(1, f"s{tx}", wallet, 0, asset, amount, 0, 2, 1))

    @rule(user=users, to=users, asset=st.sampled_from(ASSETS), amount=atoms)
    def transfer(self, user: int, to: int, asset: int, amount: int) -> None:
        self.send(Transfer(self.pick(user), self.pick(to), asset, min(amount, 2**62)), user)

    @rule(user=users, number=st.integers(3, 6), what=st.sampled_from(("register", "add", "revoke", "open")))
    def keys(self, user: int, number: int, what: str) -> None:
        owner = self.pick(user)
        subaccount = self.state.subaccounts.get(owner)
        if what == "register":
            self.send(RegisterKey(self.key(number), subaccount.user.user_id if subaccount else 0))
        elif what == "open":
            self.send(OpenSubaccount(subaccount.user.user_id if subaccount else 1, self.key(number)), user)
        else:
            self.send((AddKey if what == "add" else RevokeKey)(owner, self.key(number)), user)

    @rule(user=users, lend=st.none() | st.booleans(), leverage=st.none() | st.integers(0, 60))
    def account(self, user: int, lend: bool | None, leverage: int | None) -> None:
        limit = leverage * 10**9 if leverage is not None else None
        self.send(UpdateAccount(self.pick(user), auto_lend=lend, leverage_limit=limit), user)

    @rule(state=st.sampled_from(list(BookState)), flow=flows)
    def book_state(self, state: BookState, flow: list[tuple[Any, ...]]) -> None:
        """Another state for a while, with orders coming in all the same."""
        for each in (state, BookState.OPEN):
            self.send(ConfigureMarket(msgspec.structs.replace(self.state.markets[SOL_USDC].parameters, state=each)))
            self.trade(flow[:3])

    @rule(share=st.integers(0, 10**9), maker=st.integers(0, 2 * 10**8))
    def fees(self, share: int, maker: int) -> None:
        first = msgspec.structs.replace(self.state.fees.spot[0], maker_rate=maker)
        spot = (first, *self.state.fees.spot[1:])
        self.send(ConfigureFees(msgspec.structs.replace(self.state.fees, spot=spot, insurance_share=share)))

    @rule(user=st.integers(0, 4), tier=st.integers(-2, 3))
    def tier(self, user: int, tier: int) -> None:
        self.send(GrantTier(user, tier, -1))

    @rule(asset=st.sampled_from((*ASSETS, 9)), price=st.integers(0, 30))
    def prices_fed(self, asset: int, price: int) -> None:
        self.send(SetPrices(((asset, price * PRICE_SCALE // 2),)))

    @rule(stopped=st.booleans(), asset=st.sampled_from(ASSETS))
    def stop(self, stopped: bool, asset: int) -> None:
        self.send(StopWithdrawals(asset, stopped, "test"))

    @rule(weight=st.integers(0, 10**9 + 1))
    def reweigh(self, weight: int) -> None:
        self.send(ConfigureAsset(msgspec.structs.replace(self.state.assets[2], weight=weight)))

    @rule(hours=st.sampled_from((0, 1, 24, 719, 720)))
    def time_passes(self, hours: int) -> None:
        self.at_us += hours * 3_600_000_000 + 1
        self.send(CloseEpoch(0))

    @precondition(lambda self: self.state.sequence > 10)
    @rule()
    def restart_from_a_snapshot(self) -> None:
        content = snapshot.dump(self.state)
        self.state = snapshot.load(content)
        assert snapshot.dump(self.state) == content

    # --- how they are sent, and what is checked of every outcome

    def key(self, number: int) -> bytes:
        return sha256(b"key %d" % number).digest()

    def pick(self, user: int) -> int:
        """A subaccount by number; 0 and beyond the last are unknown ones."""
        return user

    def send(self, command: Command, user: int | None = None) -> None:
        """Apply to the exchange and, from its encoded bytes, to the one that replays; both must say the same."""
        request = self.signed(user) if user is not None else None
        self.at_us += 1
        before = _bytes_without_sequence(self.state) if self.state.sequence % 5 == 0 else None
        seq = self.state.sequence + 1
        outcome = apply(self.state, seq, self.at_us, command, request)
        again = apply(self.replayed, seq, self.at_us, decode(encode(command)), request)

        assert (again.events, again.reply) == (outcome.events, outcome.reply)
        assert [(each.kind, each.memo, each.postings) for each in again.journal] == [
            (each.kind, each.memo, each.postings) for each in outcome.journal
        ]
        if outcome.rejection is not None:
            assert again.rejection is not None and again.rejection.facts == outcome.rejection.facts
            assert not outcome.events and not outcome.journal
            if before is not None:
                assert _bytes_without_sequence(self.state) == before, "a rejected command changed something"
        self.check_journal(outcome, again)
        self.check_events(outcome, command)

    def signed(self, user: int) -> SignedRequest:
        owner = self.state.subaccounts.get(self.pick(user))
        # A key of the subaccount when it has one, else one that does not own it: the engine must notice.
        keys = [key for key, number in owner.user.keys.items() if number == user] if owner is not None else []
        self.requests += 1
        signature = sha256(b"%d" % self.requests).digest() * 2
        at_ms = self.at_us // 1_000
        return SignedRequest(keys[0] if keys else self.key(0), signature, b"", at_ms, 5_000, at_ms)

    def check_journal(self, outcome: Outcome, again: Outcome) -> None:
        for entry, other in zip(outcome.journal, again.journal, strict=True):
            assert not residues(entry), f"{entry} is out of balance by {residues(entry)}"
            assert all(amount for _account, _asset, amount in entry.postings), f"{entry} has an empty leg"
            for account, asset, amount in entry.postings:
                key = account << ASSET_BITS | asset
                self.sums[key] = self.sums.get(key, 0) + amount
            self.journal += 1
            self.head = seal(self.head, self.journal, outcome.seq, outcome.at_us, entry).hash
            self.replayed_head = seal(self.replayed_head, self.journal, outcome.seq, outcome.at_us, other).hash
        assert self.head == self.replayed_head

    def check_events(self, outcome: Outcome, command: Command) -> None:
        levels = [
            (event.market_id, event.side, event.price_ticks) for event in outcome.events if type(event) is BookLevel
        ]
        assert len(levels) == len(set(levels)), "a level was reported twice"
        for event in outcome.events:
            match event:
                case BookLevel(market_id, side, price, total):
                    level = self.state.markets[market_id].book.ladder(side).levels.get(price)
                    assert (level.lots if level is not None else 0) == total
                case BalanceChanged(subaccount_id, asset_id, free, locked):
                    assert self.state.held(subaccount_id, asset_id) == free + locked
        self.check_trades(outcome, command)

    def check_trades(self, outcome: Outcome, command: Command) -> None:
        """No fill worse than either limit, nobody trades with oneself, spend never above what was asked for."""
        trades = [event for event in outcome.events if type(event) is Trade]
        self.trades += len(trades)
        for trade in trades:
            maker, taker = trade.maker, trade.taker
            assert maker.user_id != taker.user_id and maker.side != taker.side
            assert trade.price_ticks == maker.price_ticks
            if taker.order_type is OrderType.LIMIT:
                better = taker.price_ticks - trade.price_ticks
                assert better >= 0 if taker.side is Side.BID else better <= 0
            assert maker.executed_lots <= maker.lots
        accepted = [event.order for event in outcome.events if type(event) is OrderAccepted]
        replies = outcome.reply if isinstance(outcome.reply, list) else [outcome.reply]
        for view in replies:
            if isinstance(view, OrderView) and any(view.order_id == order.order_id for order in accepted):
                own = [trade for trade in trades if trade.taker.order_id == view.order_id]
                assert view.executed_lots == sum(trade.lots for trade in own)
                if view.quote_atoms:
                    assert view.executed_quote_atoms <= view.quote_atoms
                if view.time_in_force is TimeInForce.FOK:
                    assert not view.executed_lots or view.status.name == "FILLED"

    # --- promises that hold after every step

    def hold_promises(self) -> None:
        """All of them, also between the orders of one flow."""
        self.balances_are_what_the_journal_adds_up_to()
        self.every_asset_is_zero_in_total()
        self.nobody_holds_less_than_nothing()
        self.what_is_locked_is_what_open_orders_need_and_never_more_than_is_held()
        self.books_are_never_crossed_and_first_come_is_first_served()
        self.client_ids_point_at_open_orders()
        self.volume_is_the_sum_of_its_hours()

    @invariant()
    def balances_are_what_the_journal_adds_up_to(self) -> None:
        assert _live(self.sums) == _live(self.state.balances)

    @invariant()
    def every_asset_is_zero_in_total(self) -> None:
        totals: dict[int, int] = {}
        for key, amount in self.state.balances.items():
            asset = key & (1 << ASSET_BITS) - 1
            totals[asset] = totals.get(asset, 0) + amount
        assert not _live(totals), totals

    @invariant()
    def nobody_holds_less_than_nothing(self) -> None:
        for key, amount in self.state.balances.items():
            account = key >> ASSET_BITS
            if kind_of(account) in HOLDINGS:
                assert amount <= 0, (account, amount)
            if kind_of(account) == AccountKind.RECEIVABLE:
                assert amount >= 0, (account, amount)
            assert account_type(account)
            assert owner_of(account) >= 0

    @invariant()
    def what_is_locked_is_what_open_orders_need_and_never_more_than_is_held(self) -> None:
        for subaccount in self.state.subaccounts.values():
            need: dict[int, int] = {}
            for order in subaccount.orders.values():
                parameters = order.market.parameters
                left = order.lots - order.executed_lots
                assert left > 0
                if order.side is Side.BID:
                    asset, amount = parameters.quote_asset_id, left * order.price_ticks * parameters.tick_value_atoms
                else:
                    asset, amount = parameters.base_asset_id, left * parameters.lot_atoms
                need[asset] = need.get(asset, 0) + amount
            assert need == subaccount.reserved
            for asset, amount in need.items():
                assert amount <= self.state.held(subaccount.subaccount_id, asset)

    @invariant()
    def books_are_never_crossed_and_first_come_is_first_served(self) -> None:
        resting = 0
        for market in self.state.markets.values():
            bids, asks = market.book.bids, market.book.asks
            if bids.heap and asks.heap:
                assert bids.best_price_ticks() < asks.best_price_ticks()
            for ladder in (bids, asks):
                best = [level.price_ticks * ladder.sign for level in ladder.from_best()]
                assert best == sorted(set(best)) and len(best) == len(ladder.levels)
                for level in ladder.levels.values():
                    orders = queue(level)
                    resting += len(orders)
                    assert [each.order_id for each in orders] == sorted(each.order_id for each in orders)
                    assert level.lots == sum(each.lots - each.executed_lots for each in orders)
                    assert all(self.state.orders[each.order_id] is each for each in orders)
        assert resting == len(self.state.orders) == sum(len(each.orders) for each in self.state.subaccounts.values())

    @invariant()
    def client_ids_point_at_open_orders(self) -> None:
        for subaccount in self.state.subaccounts.values():
            expected = {each.client_id: each for each in subaccount.orders.values() if each.client_id is not None}
            assert subaccount.client_ids == expected
            assert len(subaccount.orders) <= self.state.limits.open_orders_per_subaccount

    @invariant()
    def volume_is_the_sum_of_its_hours(self) -> None:
        for user in self.state.users.values():
            assert user.volume_total == sum(user.volume_buckets.values())
            assert all(user.volume_hour - 720 <= hour <= user.volume_hour for hour in user.volume_buckets)

    @invariant()
    def leaves_add_up_to_the_ledger(self) -> None:
        totals: dict[str, int] = dict.fromkeys(liabilities.columns(self.state), 0)
        for _number, _user, amounts, _detail in liabilities.accounts(self.state):
            assert min(amounts, default=0) >= 0
            for name, amount in zip(totals, amounts, strict=True):
                totals[name] += amount
        owed = -sum(amount for key, amount in self.state.balances.items() if kind_of(key >> ASSET_BITS) in HOLDINGS)
        shown = [name for name in totals if name.partition(".")[2] in liabilities.ASSET_COLUMNS]
        assert owed == sum(totals[name] for name in shown)

    def teardown(self) -> None:
        """At the end: the replay's state, and one restored from bytes, are the same byte for byte."""
        content = snapshot.dump(self.state)
        assert snapshot.dump(self.replayed) == content
        assert snapshot.dump(snapshot.load(content)) == content


def _live(amounts: dict[int, int]) -> dict[int, int]:
    return {key: amount for key, amount in amounts.items() if amount}


def _bytes_without_sequence(state: State) -> bytes:
    sequence, state.sequence = state.sequence, 0
    content = snapshot.dump(state)
    state.sequence = sequence
    return content


def machine(examples: int, steps: int) -> Any:
    case = Exchange.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case


TestExchange = machine(examples=100, steps=60)
