"""Settlement ticks: everybody's x, collected and then paid; what could not be paid; and nothing is lost on the way.

[S-10 … S-15, S-12, V-4]
"""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import tick, virtual
from engine.clock import due
from engine.commands import SetPrices, SettlePositions, Side, UpdateAccount
from engine.events import PositionsSettled, SettlementMoved
from engine.parameters import PRICE_SCALE
from engine.rejections import RejectReason
from engine.snapshot import dump, load
from engine.transition import apply
from ledger.chart import INSURANCE_FUND, INSURANCE_UNSETTLED, ROUNDING, ROUNDING_UNSETTLED, cost, position
from ledger.journal import JournalKind
from tests.engine.crowd import TICK_US, Crowd
from tests.engine.perps import Pit, cross

SIZE = 8
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: each example opens an exchange, so making one smaller takes minutes."""
TRADES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, SIZE), st.integers(1, SIZE), st.integers(1, 50), st.integers(1, 2_000)),
    max_size=12,
)
MARKS = st.tuples(*[st.integers(1, 2_000)] * 3)
FUNDS = st.lists(st.sampled_from([0, 1, 7, 500, 10**5, 10**7]), min_size=SIZE, max_size=SIZE)


class Reference:
    """The rules of S-10, S-12 (0), (1) and S-13 in plain integers, account by account."""

    def __init__(self, crowd: Crowd) -> None:
        self.held = {number: crowd.held(number) for number in crowd.state.subaccounts}
        self.unsettled = {number: each.unsettled for number, each in crowd.state.subaccounts.items()}
        self.rounding = crowd.credit(ROUNDING)
        self.rounding_unsettled = crowd.credit(ROUNDING_UNSETTLED)

    def tick(self, gains: dict[int, int]) -> None:
        collected = 0
        for number, gain in sorted(gains.items()):
            if gain >= 0:
                continue
            given_up = min(-gain, max(0, self.unsettled[number]))
            paid = min(-gain - given_up, self.held[number])
            self.unsettled[number] -= given_up + (-gain - given_up - paid)
            self.held[number] -= paid
            collected += paid
        owed = sum(gain for gain in gains.values() if gain > 0)
        paid_out = 0
        for number, gain in gains.items():
            if gain > 0:
                paid = gain * collected // owed
                self.held[number] += paid
                self.unsettled[number] += gain - paid
                paid_out += paid
        self.rounding += collected - paid_out
        self.rounding_unsettled -= collected - paid_out
        self._retry()

    def _retry(self) -> None:
        waiting = {number: atoms for number, atoms in sorted(self.unsettled.items()) if atoms > 0}
        owes_nobody = not any(atoms < 0 for atoms in self.unsettled.values())
        paid = 0
        for number, atoms in sorted(self.unsettled.items()):
            if atoms < 0:
                part = min(-atoms, self.held[number])
                self.held[number] -= part
                self.unsettled[number] += part
                paid += part
        whole = sum(waiting.values())
        from_rounding = 0
        if owes_nobody and whole:
            from_rounding = max(0, min(-self.rounding_unsettled, self.rounding))
        out = 0
        for number, atoms in waiting.items():
            part = atoms * min(paid, whole) // whole
            extra = min(from_rounding, atoms - part)
            from_rounding -= extra
            self.held[number] += part + extra
            self.unsettled[number] -= part + extra
            out += part + extra
        self.rounding += paid - out
        self.rounding_unsettled -= paid - out


@settings(max_examples=120, deadline=None, phases=PHASES)
@given(FUNDS, st.lists(st.tuples(TRADES, MARKS), min_size=1, max_size=4), st.sampled_from([1, 1, 10**13]))
def test_a_tick_does_what_the_rules_do_account_by_account(
    funds: list[int], rounds: list[tuple[Any, Any]], scale: int
) -> None:
    """Also where 64 bits would not do: the same rules, in Python's ints.   [S-10, S-12, S-13, S-14]"""
    crowd = Crowd(SIZE)
    for number, atoms in enumerate(funds, 1):
        if atoms:
            crowd.fund(number, atoms * scale)
    for trades, marks in rounds:
        for which, buyer, seller, lots, price in trades:
            if buyer != seller:
                crowd.trade(crowd.markets[which], buyer, seller, lots * scale, price * scale)
        for market, mark in zip(crowd.markets, marks, strict=True):
            market.mark_lot = mark * scale
        gains, reference = crowd.gains(), Reference(crowd)
        assert sum(gains.values()) == 0
        reference.tick(gains)
        crowd.tick()
        assert {number: crowd.held(number) for number in crowd.state.subaccounts} == reference.held
        assert {number: each.unsettled for number, each in crowd.state.subaccounts.items()} == reference.unsettled
        assert crowd.credit(ROUNDING) == reference.rounding
        assert crowd.credit(ROUNDING_UNSETTLED) == reference.rounding_unsettled
        assert not any(crowd.gains().values())
        for market in crowd.markets:
            assert not market.traded
            assert all(held.lots for held in market.holders.values())
            assert tick._held(market).ids.tolist() == sorted(market.holders)
            assert tick._held(market).lots.tolist() == [market.holders[n].lots for n in sorted(market.holders)]


MANY = 60
FEW_TRADES = st.lists(st.tuples(st.integers(1, MANY), st.integers(1, MANY), st.integers(1, 3)), max_size=3)


@settings(max_examples=40, deadline=None, phases=PHASES)
@given(st.lists(st.tuples(FEW_TRADES, st.integers(1, 2_000)), min_size=2, max_size=6), st.sampled_from([1, 10**13]))
def test_a_few_trades_among_many_holders_are_put_in_their_places(rounds: Any, scale: int) -> None:
    """Who is new, who has more, who has closed: the kept columns are what reading everybody would give.   [S-14]"""
    crowd = Crowd(MANY)
    market = crowd.markets[0]
    market.mark_lot = 1_000
    for number in range(1, MANY + 1):
        crowd.fund(number, 10**20 * scale)
        if 10 < number <= 30:
            crowd.trade(market, number, number + 20, 1, 1_000)
    crowd.tick()
    for trades, mark in rounds:
        for buyer, seller, lots in trades:
            if buyer != seller:
                crowd.trade(market, buyer, seller, lots * scale, 1_000)
        market.mark_lot = mark
        gains = crowd.gains()
        before = {number: crowd.held(number) for number in crowd.state.subaccounts}
        crowd.tick()
        assert {number: crowd.held(number) - before[number] for number in before} == gains
        assert tick._held(market).ids.tolist() == sorted(market.holders)
        assert tick._held(market).lots.tolist() == [market.holders[n].lots for n in sorted(market.holders)]


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(TRADES, MARKS, MARKS)
def test_splitting_a_tick_in_two_gives_the_same_balances(trades: Any, middle: Any, last: Any) -> None:
    """As long as everybody can pay.   [S-10]"""
    once, twice = Crowd(SIZE), Crowd(SIZE)
    for crowd in (once, twice):
        for number in range(1, SIZE + 1):
            crowd.fund(number, 10**9)
        for which, buyer, seller, lots, price in trades:
            if buyer != seller:
                crowd.trade(crowd.markets[which], buyer, seller, lots, price)
    for market, mark in zip(twice.markets, middle, strict=True):
        market.mark_lot = mark
    twice.tick()
    for crowd in (once, twice):
        for market, mark in zip(crowd.markets, last, strict=True):
            market.mark_lot = mark
        crowd.tick()
    assert [once.held(n) for n in range(1, SIZE + 1)] == [twice.held(n) for n in range(1, SIZE + 1)]
    assert not once.state.unsettled and not twice.state.unsettled


LOANS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 500, 10**6])), min_size=SIZE, max_size=SIZE)
"""Of each: does not lend, lends what it holds, lends always, owes and repays always, never borrows; and how much."""


@settings(max_examples=120, deadline=None, phases=PHASES)
@given(FUNDS, LOANS, st.integers(0, 10**6), st.lists(st.tuples(TRADES, MARKS), min_size=1, max_size=4))
def test_whatever_the_pool_has_nobody_gains_or_loses_but_x(
    funds: list[int], loans: Any, drained: int, rounds: Any
) -> None:
    """Available, lent, borrowed and unsettled together change by x, and by an atom a share's rounding costs. [S-12]"""
    follow(lenders(funds, loans, drained), rounds, slack=4)


@settings(max_examples=120, deadline=None, phases=PHASES)
@given(
    FUNDS,
    LOANS,
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    st.integers(0, 10**6),
    st.lists(st.tuples(TRADES, MARKS), min_size=1, max_size=5),
)
def test_with_virtual_accounts_among_them_nobody_gains_or_loses_but_x(
    funds: list[int], loans: Any, is_virtual: list[bool], drained: int, rounds: Any
) -> None:
    """Claims count as well, and the fund is flat; also when nothing is idle.   [V-1 … V-5, S-13]"""
    crowd = lenders(funds, loans, drained)
    for number, chosen in enumerate(is_virtual, 1):
        if chosen:
            crowd.state.subaccounts[number].auto_realize_pnl = False
            virtual.note_mode(crowd.state, crowd.state.subaccounts[number])
    follow(crowd, rounds, slack=12)


def lenders(funds: list[int], loans: Any, drained: int) -> Crowd:
    """A crowd of whom some lend, and one more that borrows what it can of `drained`."""
    crowd = Crowd(SIZE + 1)
    for number, (mode, lent) in enumerate(loans, 1):
        account = crowd.state.subaccounts[number]
        crowd.fund(number, funds[number - 1] + lent + 1)
        if mode == 2:
            account.auto_lend = True
            crowd.state.automatic[number] = None
        account.auto_borrow_settlements = mode != 4
        if mode in (1, 2) and lent:
            crowd.lends(number, lent)
    for number, (mode, owed) in enumerate(loans, 1):
        if mode == 3:
            crowd.state.subaccounts[number].auto_repay_borrows = True
            crowd.state.automatic[number] = None
            if min(owed, crowd.idle()):
                crowd.borrows(number, min(owed, crowd.idle()))
    if min(drained, crowd.idle()):
        crowd.borrows(SIZE + 1, min(drained, crowd.idle()))
    return crowd


def follow(crowd: Crowd, rounds: Any, slack: int) -> None:
    """Tick after tick, what everybody is worth changes by x."""
    for trades, marks in rounds:
        for which, buyer, seller, lots, price in trades:
            if buyer != seller:
                crowd.trade(crowd.markets[which], buyer, seller, lots, price)
        for market, mark in zip(crowd.markets, marks, strict=True):
            market.mark_lot = mark
        gains = crowd.gains()
        crowd.at_us += TICK_US
        before = {number: crowd.worth(number) for number in crowd.state.subaccounts}
        crowd.at_us -= TICK_US
        crowd.tick()
        for number in range(1, SIZE + 1):
            after = crowd.worth(number)
            assert abs(after - before[number] - gains[number]) <= slack, (number, before[number], gains[number], after)


# --- one by one -------------------------------------------------------------------------------------------------------

LOT = 1_000
"""The mark of a lot before anything moves."""


def standing(*funds: int, lots: int = 100) -> Crowd:
    """Neighbours 1 long 2, 3 long 4 … in the first market at a settled mark, with this much USDC each."""
    crowd = Crowd(len(funds))
    market = crowd.markets[0]
    market.mark_lot = LOT
    for number, atoms in enumerate(funds, 1):
        if atoms:
            crowd.fund(number, atoms)
    for number in range(1, len(funds), 2):
        crowd.trade(market, number, number + 1, lots, LOT)
    if any(market.traded):
        crowd.tick()
    assert not any(crowd.gains().values())
    return crowd


def moved(crowd: Crowd, by: int) -> Any:
    crowd.markets[0].mark_lot += by
    return crowd.tick()


def test_an_unchanged_mark_with_nothing_traded_moves_nothing() -> None:
    crowd = standing(1_000, 1_000)
    assert not tick.is_moving(crowd.state)
    outcome = crowd.tick()
    assert outcome.journal == [] and outcome.settled is None
    assert [type(event) for event in outcome.events] == [PositionsSettled]


def test_a_plain_tick_is_one_transaction_of_columns_and_says_whom_it_moved() -> None:
    crowd = standing(10_000, 10_000, 10_000, 10_000)
    crowd.trade(crowd.markets[0], 1, 4, 5, LOT + 2)
    outcome = moved(crowd, 10)
    (entry,) = outcome.journal
    market_id = crowd.markets[0].parameters.market_id
    assert entry.kind == JournalKind.SETTLEMENT and entry.postings == []
    assert entry.memo[1] == ((market_id, LOT, LOT + 10),)
    assert [(batch.asset, batch.owners.tolist(), batch.atoms.tolist()) for batch in entry.batches] == [
        (cost(market_id), [1, 4], [-10, 10]),
        (crowd.usdc, [1, 2, 3, 4], [-1_040, 1_000, -1_000, 1_040]),
    ]
    assert outcome.settled.tolist() == [1, 2, 3, 4]
    assert outcome.events == [PositionsSettled((market_id,), (LOT + 10,), 2_040, 2_040, 0)]


def test_who_cannot_pay_owes_and_winners_wait_pro_rata_until_money_comes() -> None:
    """5,000 of 10,000 come in: each winner gets half; a deposit of the loser's goes to those that wait.   [S-13]"""
    crowd = standing(0, 300, 0, 4_701, lots=500)
    for account in crowd.state.subaccounts.values():
        account.auto_borrow_settlements = False
    outcome = moved(crowd, 10)
    unsettled = [each.unsettled for each in crowd.state.subaccounts.values()]
    assert unsettled == [2_500, -4_700, 2_500, -299]
    assert [crowd.held(n) for n in (1, 2, 3, 4)] == [2_500, 0, 2_500, 0]
    told = [event for event in outcome.events if isinstance(event, SettlementMoved)]
    assert told == [SettlementMoved(2, "realize", -300), SettlementMoved(4, "realize", -4_701)]
    assert crowd.credit(ROUNDING) == 1 and crowd.credit(ROUNDING_UNSETTLED) == -1

    # A deposit pays what its owner owes at once; those that wait share it.
    crowd.exchange.at_us = crowd.at_us
    crowd.exchange.deposit(2, "USDC", 10_000)
    crowd.check()
    assert crowd.state.subaccounts[2].unsettled == 0
    assert crowd.held(2) == 10_000 - 4_700
    assert crowd.held(1) == crowd.held(3) == 2_500 + 2_350
    crowd.fund(4, 10_000)
    crowd.tick()
    # Nobody owes any more but rounding, and it pays as well.
    crowd.tick()
    assert not crowd.state.unsettled
    assert crowd.credit(ROUNDING_UNSETTLED) == 0
    assert [crowd.held(n) for n in (1, 2, 3, 4)] == [5_000, 5_300, 5_000, 10_000 - 299]


def test_what_open_orders_lock_pays_no_loss() -> None:
    """A bid's lock is an encumbrance: the loser borrows or owes rather than take it.   [S-1, S-12 (1), A-13]"""
    pit = Pit()
    debtor, other = pit.member("debtor", 1_000), pit.member("other", 10_000)
    debtor.does(UpdateAccount(debtor.subaccount, auto_borrow_settlements=False))
    cross(debtor, other, 1_000, 15_000)
    pit.exchange.advance(10)
    perpetual, pit.market = pit.market, pit.exchange.market("SOL_USDC")
    debtor.buys(600, 14_000)
    pit.market = perpetual
    locked = debtor.account.reserved[pit.exchange.state.usdc]
    free = debtor.usdc - locked
    pit.price(130)
    pit.exchange.advance(10)
    assert 100 * 10**6 < free < 200 * 10**6
    assert debtor.usdc == locked and debtor.account.unsettled == free - 200 * 10**6


def test_a_loser_gives_up_what_it_is_owed_first() -> None:
    """Own positive unsettled equity passes to the winners before cash is taken.   [S-12 (0)]"""
    crowd = standing(5_000, 0, lots=100)
    crowd.state.subaccounts[2].auto_borrow_settlements = False
    moved(crowd, 10)
    assert (crowd.state.subaccounts[1].unsettled, crowd.held(1)) == (1_000, 5_000)
    moved(crowd, -10)
    assert crowd.held(1) == 5_000 and not crowd.state.unsettled


def test_the_insurance_fund_advances_where_it_may() -> None:
    crowd = standing(0, 400)
    crowd.state.subaccounts[2].auto_borrow_settlements = False
    crowd.insure(500)
    limits = crowd.state.limits
    crowd.state.limits = replace(limits, risk=replace(limits.risk, settlement_advance=True))
    moved(crowd, 10)
    assert crowd.held(1) == 900 and crowd.state.subaccounts[1].unsettled == 100
    assert crowd.credit(INSURANCE_FUND) == 0 and crowd.credit(INSURANCE_UNSETTLED) == 500
    crowd.fund(2, 600)
    crowd.tick()
    assert crowd.held(1) == 1_000 and crowd.credit(INSURANCE_FUND) == 500
    assert not crowd.state.unsettled and crowd.credit(INSURANCE_UNSETTLED) == 0


def test_a_loser_redeems_then_borrows_and_a_winner_with_auto_lend_gets_shares() -> None:
    """What is lent passes at par to who would lend it again, also when nothing is idle.   [S-11, S-12 (2), (3)]"""
    crowd = standing(0, 1_000, 5_000, 0)
    state = crowd.state
    crowd.lends(2, 600)
    state.subaccounts[1].auto_lend = True
    state.automatic[1] = None
    crowd.borrows(3, 600)
    assert crowd.idle() == 0
    moved(crowd, 10)
    # 2 owes 1,000: 400 it has, 600 it lends. 4 has nothing and may borrow nothing: nothing is idle.
    assert (crowd.held(2), crowd.worth(2)) == (0, 0)
    assert state.subaccounts[4].unsettled == -1_000
    lent = state.subaccounts[1].lent
    assert crowd.usdc in lent and crowd.idle() >= 0
    assert crowd.worth(1) == 1_000 and state.subaccounts[1].unsettled > 0


def test_what_idle_cannot_redeem_passes_as_shares_to_winners() -> None:
    crowd = standing(0, 1_000, 5_000, 5_000)
    crowd.lends(2, 1_000)
    crowd.borrows(3, 900)
    moved(crowd, 10)
    assert crowd.idle() == 0
    # 1 and 3 are each paid 1,000; 900 of the 2,000 are shares.
    assert crowd.held(1) == 550 and crowd.held(3) == 5_000 + 900 + 550
    assert crowd.worth(1) == 1_000 and crowd.worth(3) == 6_000


def test_a_loser_without_usdc_borrows_what_the_pool_lets_pass() -> None:
    crowd = standing(0, 0, 10**6, 10**6)
    crowd.lends(4, 10_000)
    moved(crowd, 10)
    assert crowd.worth(2) == -1_000 and crowd.held(2) == 0
    assert not crowd.state.unsettled and crowd.held(1) == 1_000


def test_unsettled_equity_accrues_the_borrow_rate() -> None:
    """Owed a tick at the rate of the pool, up; earned by who waits, down; the rest is rounding's.   [S-13]"""
    crowd = standing(0, 0, 10**12, 10**12, lots=10**7)
    state = crowd.state
    state.subaccounts[2].auto_borrow_settlements = False
    crowd.lends(4, 10**11)
    crowd.borrows(3, 10**10)
    moved(crowd, 10**3)
    owed, waits = -state.subaccounts[2].unsettled, state.subaccounts[1].unsettled
    assert owed == 10**10 and waits < owed
    outcome = crowd.tick()
    interest = next(entry for entry in outcome.journal if entry.kind == JournalKind.UNSETTLED_INTEREST)
    rate = int(interest.memo[0])
    assert rate > 0
    year = 10**18 * 8_760 * 3_600_000
    assert -state.subaccounts[2].unsettled == owed + -(-owed * rate * 10_000 // year)
    assert state.subaccounts[1].unsettled == waits + waits * rate * 10_000 // year


def test_the_residue_of_funding_becomes_the_rounding_accounts_usdc() -> None:
    """A cost that stands on the rounding account is realized at the tick like a position of no lots.   [P-21]"""
    crowd = standing(10_000, 10_000)
    asset = cost(crowd.markets[0].parameters.market_id)
    crowd.posts(JournalKind.FUNDING, (position(1), asset, 8), (position(2), asset, -5), (ROUNDING, asset, -3))
    assert tick.is_moving(crowd.state)
    crowd.tick()
    assert (crowd.held(1), crowd.held(2), crowd.credit(ROUNDING)) == (9_992, 10_005, 3)
    assert not tick.is_moving(crowd.state)


def test_a_tick_out_of_order_is_refused() -> None:
    crowd = standing(1_000, 1_000)
    for at_us in (crowd.at_us, crowd.at_us + 1_000_000):
        outcome = apply(crowd.state, crowd.state.sequence + 1, at_us, SettlePositions())
        assert outcome.rejection is not None and outcome.rejection.reason is RejectReason.TICK_OUT_OF_ORDER


# --- when -------------------------------------------------------------------------------------------------------------


def commands_of(pit: Pit, seconds: int) -> list[tuple[int, str]]:
    """(second, command) of what falls due."""
    until_us, found = pit.exchange.at_us + seconds * 1_000_000, []
    while (scheduled := due(pit.exchange.state, until_us)) is not None:
        pit.exchange.at_us, command = scheduled
        pit.exchange.do(command)
        found.append((pit.exchange.at_us // 1_000_000, type(command).__name__))
    pit.exchange.at_us = until_us
    return found


def test_what_falls_due_together_runs_in_its_order() -> None:
    """Samples, interest, funding, settlement, throttle, epoch: at one second, in this order.   [S-15]"""
    pit = Pit()
    long, short = pit.member("long", 10_000), pit.member("short", 10_000)
    long.does(UpdateAccount(long.subaccount, auto_lend=True))
    cross(long, short, 100, 15_100)
    pit.exchange.advance(10)
    hour = (pit.exchange.at_us // 3_600_000_000 + 1) * 3_600
    pit.exchange.advance(hour - 5 - pit.exchange.at_us // 1_000_000)
    # With something to settle already: funding comes first all the same, and is in the same settlement.
    pit.price(152)
    at_the_hour = [name for second, name in commands_of(pit, 6) if second == hour]
    wanted = ["SampleMarks", "AccrueInterest", "ChargeFunding", "SettlePositions", "UpdateThrottle", "CloseEpoch"]
    assert [name for name in at_the_hour if name in wanted] == wanted


def test_each_tick_settles_at_its_own_mark_while_nobody_does_anything() -> None:
    """The mark follows the book by itself: ticks in between are not left out, those that move nothing are.   [S-10]"""
    pit = Pit()
    long, short, quoting = (pit.member(name, 100_000) for name in ("long", "short", "quoting"))
    cross(long, short, 100, 15_000)
    pit.exchange.advance(10)
    quoting.trade(Side.BID, 10, 15_100)
    quoting.trade(Side.ASK, 10, 15_110)
    found = commands_of(pit, 60)
    ticks = [second for second, name in found if name == "SettlePositions"]
    assert len(ticks) == 6 and all(second % 10 == 0 for second in ticks)
    pit.exchange.advance(10_000)
    assert "SettlePositions" not in [name for second, name in commands_of(pit, 100) if second % 3_600]


def test_replaying_the_commands_gives_the_same_bytes() -> None:
    """Also from a snapshot in between, whose arrays are made anew.   [A-6, A-10]"""
    pit = Pit()
    members = [pit.member(f"m{number}", 1_000) for number in range(6)]
    members[0].does(UpdateAccount(members[0].subaccount, auto_lend=True))
    members[1].does(UpdateAccount(members[1].subaccount, auto_realize_pnl=False))
    for buyer, seller in ((0, 1), (2, 3), (4, 5)):
        cross(members[buyer], members[seller], 200 + buyer, 15_000)
    pit.exchange.advance(10)
    other = load(dump(pit.exchange.state))
    for price in (140, 165, 151):
        pit.price(price)
        began_us, commands = pit.exchange.at_us, []
        until_us = began_us + 20_000_000
        while (scheduled := due(pit.exchange.state, until_us)) is not None:
            pit.exchange.at_us, command = scheduled
            pit.exchange.do(command)
            commands.append((pit.exchange.at_us, command))
        pit.exchange.at_us = until_us
        outcome = apply(other, other.sequence + 1, began_us, SetPrices(((pit.base, price * PRICE_SCALE),)))
        assert outcome.rejection is None
        for at_us, command in commands:
            assert apply(other, other.sequence + 1, at_us, command).rejection is None
        assert dump(other) == dump(pit.exchange.state)
