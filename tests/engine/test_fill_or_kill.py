"""Fill-or-kill orders for perpetuals: whole or not at all, whatever the makers' margins.   [S-7, M-9]"""

from __future__ import annotations

from random import Random

import pytest

from engine.commands import BorrowLend, LendingSide, SelfTrade, Side, TimeInForce
from engine.events import ExpiryReason, OrderView
from tests.engine.perps import Pit, cross

BID, ASK = Side.BID, Side.ASK
FOK = TimeInForce.FOK


def test_it_fills_whole_by_makers_with_margin() -> None:
    pit = Pit()
    anna, bert, carl = pit.member("anna", 1_000), pit.member("bert", 1_000), pit.member("carl", 1_000)
    bert.trade(ASK, 100, 15_000)
    carl.trade(ASK, 100, 15_010)
    view: OrderView = anna.trade(BID, 150, 15_010, time_in_force=FOK).reply
    assert view.executed_lots == 150 and (bert.lots, carl.lots) == (-100, -50)
    killed: OrderView = anna.trade(BID, 51, 15_010, time_in_force=FOK).reply
    assert killed.executed_lots == 0 and killed.expiry_reason is ExpiryReason.FILL_OR_KILL
    assert pit.is_balanced()


def test_a_maker_that_would_fail_is_not_counted_on() -> None:
    """Bert's order rests while he has its margin; then his money is gone into another position's loss."""
    pit = Pit()
    anna, bert, carl = pit.member("anna", 10_000), pit.member("bert", 1_000), pit.member("carl", 10_000)
    cross(bert, carl, 4_000, 15_000)
    bert.trade(BID, 2_000, 14_900)
    pit.price(137)
    before = anna.lots
    killed: OrderView = anna.trade(ASK, 100, 14_000, time_in_force=FOK).reply
    assert killed.executed_lots == 0 and killed.expiry_reason is ExpiryReason.FILL_OR_KILL
    assert anna.lots == before
    carl.trade(BID, 100, 14_800)
    filled: OrderView = anna.trade(ASK, 100, 14_000, time_in_force=FOK).reply
    assert filled.executed_lots == 100 and anna.lots == -100


def test_a_makers_fees_are_counted_over_all_its_orders() -> None:
    """Each order's fee of 0.6 is there, those of two are not: what is lent may not be there when it is needed."""
    pit = Pit()
    anna, bert = pit.member("anna", 100_000), pit.member("bert", 10_000)
    bert.does(BorrowLend(bert.subaccount, pit.state.usdc, LendingSide.LEND, 9_999 * 10**6))
    for price in (15_000, 15_001):
        assert bert.trade(ASK, 2_000, price).rejection is None
    killed: OrderView = anna.trade(BID, 4_000, 15_001, time_in_force=FOK).reply
    assert killed.executed_lots == 0
    filled: OrderView = anna.trade(BID, 2_000, 15_001, time_in_force=FOK).reply
    assert filled.executed_lots == 2_000 and pit.is_balanced()


def test_a_taker_is_judged_for_the_whole() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 100), pit.member("bert", 100_000)
    bert.trade(ASK, 400, 15_000)
    bert.trade(ASK, 400, 15_001)
    # 100 dollars at 10 x carry about 660 lots: 700 are refused as an order, 650 fill whole.
    assert anna.trade(BID, 700, 15_001, time_in_force=FOK).rejection is not None
    view: OrderView = anna.trade(BID, 640, 15_001, time_in_force=FOK).reply
    assert view.executed_lots == 640


def test_reduce_only_fills_no_more_than_the_position() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    cross(anna, bert, 100, 15_000)
    bert.trade(BID, 300, 15_000)
    killed: OrderView = anna.trade(ASK, 101, 15_000, time_in_force=FOK, reduce_only=True).reply
    assert killed.executed_lots == 0
    filled: OrderView = anna.trade(ASK, 100, 15_000, time_in_force=FOK, reduce_only=True).reply
    assert filled.executed_lots == 100 and anna.lots == 0


def test_a_reduce_only_maker_counts_for_what_it_reduces() -> None:
    pit = Pit()
    anna, bert, carl = pit.member("anna", 1_000), pit.member("bert", 1_000), pit.member("carl", 1_000)
    cross(bert, carl, 50, 15_000)
    bert.trade(ASK, 80, 15_000, reduce_only=True)
    carl.trade(ASK, 10, 15_001)
    killed: OrderView = anna.trade(BID, 61, 15_001, time_in_force=FOK).reply
    assert killed.executed_lots == 0
    filled: OrderView = anna.trade(BID, 60, 15_001, time_in_force=FOK).reply
    assert filled.executed_lots == 60 and bert.lots == 0


@pytest.mark.parametrize(("mode", "executed"), [(1, 0), (2, 100), (3, 0)])
def test_self_trade_modes(mode: int, executed: int) -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    anna.trade(ASK, 50, 15_000)
    bert.trade(ASK, 100, 15_001)
    view: OrderView = anna.trade(BID, 100, 15_001, time_in_force=FOK, self_trade=SelfTrade(mode)).reply
    assert view.executed_lots == executed


@pytest.mark.parametrize("seed", range(25))
def test_it_is_all_or_nothing_at_random(seed: int) -> None:
    """Makers near their limits, prices that move, orders of every kind: no fill-or-kill order is ever half filled."""
    random = Random(seed)
    pit = Pit()
    members = [pit.member(f"m{number}", random.choice((20, 50, 100, 300, 1_000))) for number in range(8)]
    filled = killed = 0
    dollars = 150.0
    for _each in range(250):
        member = random.choice(members)
        side = random.choice((BID, ASK))
        at = round(dollars * 100) + random.randint(-150, 150)
        if random.random() < 0.08:
            dollars = min(200.0, max(110.0, dollars * random.uniform(0.97, 1.03)))
            pit.price(dollars)
            continue
        if random.random() < 0.5:
            member.trade(side, random.randint(1, 300), at, reduce_only=random.random() < 0.2)
            continue
        lots = random.randint(1, 400)
        mode = SelfTrade(random.randint(1, 3))
        fields = {"time_in_force": FOK, "self_trade": mode, "reduce_only": random.random() < 0.2}
        limit = at + (300 if side is BID else -300) if random.random() < 0.7 else 0
        outcome = member.trade(side, lots, limit, **fields)
        if outcome.rejection is not None:
            continue
        view: OrderView = outcome.reply
        assert view.executed_lots in (0, lots), (view, outcome.events)
        filled, killed = filled + bool(view.executed_lots), killed + (not view.executed_lots)
    assert filled > 5 and killed > 5
    assert pit.is_balanced()
