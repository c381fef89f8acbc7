"""What waits for a price, its time or a quote survives a snapshot, and goes on as if there had been none.   [A-10]"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from engine import snapshot
from engine.clock import due
from engine.commands import (
    AcceptQuote,
    Bracket,
    CancelAllOrders,
    Command,
    CreateStrategy,
    SetPrices,
    SubmitQuote,
    SubmitRfq,
    TriggerBy,
)
from engine.parameters import PRICE_SCALE
from engine.state import State
from engine.transition import apply
from tests.engine.desk import ASK, BID, Desk, Trader


def commands(desk: Desk, traders: list[Trader], random: Random, count: int) -> list[tuple[Trader | None, Command]]:
    """Orders of every kind around 150, prices that move, strategies and requests."""
    sol = desk.exchange.asset("SOL")
    made: list[tuple[Trader | None, Command]] = []
    for _each in range(count):
        trader = random.choice(traders)
        side, price = random.choice((BID, ASK)), 15_000 + random.randint(-60, 60)
        match random.randint(0, 9):
            case 0:
                price_usd = (15_000 + random.randint(-80, 80)) * PRICE_SCALE // 100
                made.append((None, SetPrices(((sol, price_usd),))))
            case 1 | 2:
                by = random.choice((TriggerBy.LAST, TriggerBy.MARK, TriggerBy.INDEX))
                made.append((trader, trader.order(side, 0, 10, trigger_by=by, trigger_price_ticks=price)))
            case 3:
                loss, profit = (14_800, 15_200) if side is BID else (15_200, 14_800)
                brackets: dict[str, Any] = {
                    "stop_loss": Bracket(TriggerBy.LAST, loss),
                    "take_profit": Bracket(TriggerBy.MARK, profit),
                }
                made.append((trader, trader.order(side, price, 20, **brackets)))
            case 4:
                made.append((trader, CreateStrategy(trader.subaccount, desk.market, side, 40, 5_000, 1_000, price)))
            case 5:
                made.append((trader, SubmitRfq(trader.subaccount, desk.market, side, 10)))
            case 6:
                number = random.randint(1, 8)
                made.append((trader, SubmitQuote(trader.subaccount, number, 14_990, 15_010)))
            case 7:
                made.append((trader, AcceptQuote(trader.subaccount, random.randint(1, 8))))
            case 8 if random.random() < 0.1:
                made.append((trader, CancelAllOrders(trader.subaccount)))
            case _:
                made.append((trader, trader.order(side, price, random.randint(1, 30))))
    return made


def run(desk: Desk, state: State, at_us: int, command: Command, request: Any) -> list[int]:
    """What is due first, then the command; the hashes of what each did."""
    done = []
    while True:
        tick = due(state, at_us)
        tick_us, next_command = tick if tick is not None else (at_us, command)
        signed = request if tick is None else None
        outcome = apply(state, state.sequence + 1, max(tick_us, state.at_us), next_command, signed)
        done.append(hash((type(next_command).__name__, repr(outcome.events), repr(outcome.journal))))
        if tick is None:
            return done


@pytest.mark.parametrize("seed", range(6))
def test_a_state_read_back_goes_on_as_the_one_that_was_written(seed: int) -> None:
    random = Random(seed)
    desk = Desk()
    traders = [desk.trader(name) for name in ("alice", "bob", "carol")]
    sol = desk.exchange.asset("SOL")
    desk.exchange.do(SetPrices(((sol, 150 * PRICE_SCALE),)))
    state, other, at_us = desk.state, None, desk.exchange.at_us
    waited = strategies = requests = 0
    for place, (trader, command) in enumerate(commands(desk, traders, random, 400)):
        at_us += random.choice((1, 1_000, 300_000))
        request = desk.exchange.signed(trader.key) if trader is not None else None
        done = run(desk, state, at_us, command, request)
        if other is not None:
            assert run(desk, other, at_us, command, request) == done
        if place % 40 == 39:
            content = snapshot.dump(state)
            other = snapshot.load(content)
            assert snapshot.dump(other) == content
        waited += sum(len(each.waiting) for each in state.subaccounts.values())
        strategies, requests = strategies + len(state.strategies), requests + len(state.rfqs)
    assert waited > 100 and strategies > 100 and requests > 100
    assert other is not None and snapshot.dump(other) == snapshot.dump(state)
