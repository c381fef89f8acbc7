"""Liquidity pools: swaps of one hop and two, units, what providers earned; snapshots and replays in the middle of it.

[X-1 … X-4, X-9, X-14, A-6, A-10]
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from engine import pool_positions, pools, snapshot
from engine.commands import CloseLong, Command, RemoveLiquidity, SwapAssets, decode, encode
from engine.events import LiquidityMoved, LongClosed, LongOpened, Outcome, PoolChanged, PoolEpochRan, PoolSwapped
from engine.parameters import DEC
from engine.rejections import RejectReason
from engine.state import State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import amm_book, pool_units, units_held
from ledger.journal import JournalKind, JournalTransaction
from tests.engine.amm import FEE, HOUR, ROWAN, SOL, USDC, Party, Pond, swapped
from tests.engine.exchange import Exchange


@pytest.fixture
def pond() -> Pond:
    """Two pools: ROWAN : USDC at 1, ROWAN : SOL at 100 ROWAN for one."""
    pond = Pond()
    filler = pond.party("filler", rowan=500_000, sol=5_000)
    sol = pond.exchange.asset("SOL")
    filler.does(replace(filler.addition(500_000 * ROWAN, 5_000 * SOL), pool_id=sol))
    return pond


# Swaps


@pytest.mark.parametrize(("pays", "gets"), [("USDC", "ROWAN"), ("ROWAN", "USDC")])
@pytest.mark.parametrize("atoms", [1, 333, 334, 999, 10**6, 123_456_789, 10**11])
def test_a_swap_pays_what_the_rule_says(pond: Pond, pays: str, gets: str, atoms: int) -> None:
    """⌊raw⌋ − ⌊raw·f⌋ to the trader, the fee stays in the pool in the asset paid out.   [X-1]"""
    trader = pond.party("trader", rowan=1_000_000, usdc=1_000_000)
    native, external = pools.depths(pond.pool)
    into, out = (native, external) if pays == "ROWAN" else (external, native)
    had = (trader.has(pays), trader.has(gets))
    swap = trader.swaps(pays, gets, atoms, min_received=0)
    received, fee = swapped(into, out, atoms)
    assert (swap.paid_atoms, swap.received_atoms, swap.fee_atoms, swap.hop) == (atoms, received, fee, 0)
    assert swap.is_native_paid == (pays == "ROWAN")
    assert (trader.has(pays), trader.has(gets)) == (had[0] - atoms, had[1] + received)
    after = (into + atoms, out - received)
    assert pools.depths(pond.pool) == (after if pays == "ROWAN" else after[::-1])
    # The product never falls: what rounding takes, the pool keeps.
    assert after[0] * after[1] >= into * out
    assert pond.is_conserved()


def test_a_swap_that_pays_nothing_is_refused_unless_asked_for(pond: Pond) -> None:
    """An atom of ROWAN is no atom of USDC; who asks for none gives it away.   [X-1]"""
    trader = pond.party("trader", rowan=1)
    refused = trader.refusal(trader.swap("ROWAN", "USDC", 999))
    assert refused.reason is RejectReason.MIN_RECEIVED
    assert (refused.facts["received"], refused.facts["least"]) == (0, 1)
    before = pools.depths(pond.pool)
    assert trader.swaps("ROWAN", "USDC", 999, min_received=0).received_atoms == 0
    assert [atoms for _account, _asset, atoms in pond.last.journal[0].postings] == [999, -999]
    assert pools.depths(pond.pool) == (before[0] + 999, before[1]) and trader.has("USDC") == 0
    assert pond.is_conserved()


def test_a_swap_through_two_pools_is_two_swaps_through_rowan(pond: Pond) -> None:
    """In one transaction: both or none, the ROWAN between them in nobody's hands.   [X-2]"""
    trader = pond.party("trader", usdc=1_000)
    first, second = pond.pool, pond.state.amm_pools[pond.exchange.asset("SOL")]
    native, external = pools.depths(first)
    between = swapped(external, native, 1_000 * USDC)
    sol_native, sol_external = pools.depths(second)
    last = swapped(sol_native, sol_external, between[0])
    quote = pools.quote_swap(pond.state, pond.usdc, second.parameters.pool_id, 1_000 * USDC)
    reply = trader.swaps("USDC", "SOL", 1_000 * USDC)

    hops = pond.reported(PoolSwapped)
    assert [(hop.hop, hop.pool_id, hop.is_native_paid) for hop in hops] == [
        (1, pond.usdc, False), (2, second.parameters.pool_id, True),
    ]  # fmt: skip
    assert [(hop.paid_atoms, hop.received_atoms, hop.fee_atoms) for hop in hops] == [
        (1_000 * USDC, *between), (between[0], *last),
    ]  # fmt: skip
    assert reply == hops[-1] and quote.received == last[0] == trader.has("SOL")
    assert [(hop.paid, hop.received, hop.fee) for hop in quote.hops] == [
        (hop.paid_atoms, hop.received_atoms, hop.fee_atoms) for hop in hops
    ]
    assert (trader.has("ROWAN"), trader.has("USDC")) == (0, 0)
    assert [entry.kind for entry in pond.last.journal] == [JournalKind.POOL_SWAP]
    assert [event.pool.pool_id for event in pond.reported(PoolChanged)] == [pond.usdc, second.parameters.pool_id]
    assert pools.depths(first) == (native - between[0], external + 1_000 * USDC)
    assert pools.depths(second) == (sol_native + between[0], sol_external - last[0])
    assert pond.is_conserved()


def test_of_two_hops_none_happens_when_one_cannot(pond: Pond) -> None:
    """A limit, a second pool that has not enough, a first hop that pays nothing.   [X-2]"""
    trader = pond.party("trader", usdc=900_000, sol=1)
    received = pools.quote_swap(pond.state, pond.usdc, pond.exchange.asset("SOL"), 1_000 * USDC).received
    refused = trader.refusal(trader.swap("USDC", "SOL", 1_000 * USDC, min_received=received + 1))
    assert refused.reason is RejectReason.MIN_RECEIVED and refused.facts["received"] == received
    # 1 atom of SOL is 100 of ROWAN, which are no atom of USDC.
    assert trader.refusal(trader.swap("SOL", "USDC", 1)).reason is RejectReason.MIN_RECEIVED
    pond.set(fee_rate=DEC // 2)
    pond.set(pool_id=pond.exchange.asset("SOL"), max_atoms=500_001 * ROWAN)
    assert trader.refusal(trader.swap("USDC", "SOL", 1_000 * USDC)).reason is RejectReason.POOL_LIMIT
    trader.swaps("USDC", "SOL", 1 * USDC, min_received=1)


def test_a_quote_is_what_the_command_then_gives(pond: Pond) -> None:
    """Swaps, additions, removals, opens and closes.   [X-1 … X-5, X-10]"""
    sally = pond.party("sally", rowan=10_000, usdc=10_000)
    quote = pools.quote_swap(pond.state, pond.usdc, pond.rowan, 777 * USDC)
    (hop,) = quote.hops
    native, external = pools.depths(pond.pool)
    # Without the fee: 777 into a million is worse than the spot price by that over the sum; rounded up.
    exact = 1 - Fraction(hop.received + hop.fee) * external / (777 * USDC * native)
    assert hop.impact == -floor(-exact * DEC) and abs(exact - Fraction(777 * USDC, external + 777 * USDC)) < FEE / 10**6
    assert sally.swaps("USDC", "ROWAN", 777 * USDC).received_atoms == quote.received

    units = pools.quote_add(pond.state, pond.usdc, 50 * ROWAN, 90 * USDC)
    assert sally.adds(50 * ROWAN, 90 * USDC) == units.minted and pond.pool.units == units.total
    taken = pools.quote_removal(pond.state, pond.usdc, units.minted // 3)
    assert sally.removes(units=units.minted // 3) == (taken.native, taken.external)

    long = pool_positions.quote_open(pond.state, pond.usdc, pond.rowan, 100 * USDC, 5 * DEC, pond.exchange.at_us + 1)
    opened = sally.opens("ROWAN", 100 * USDC, 5 * DEC)
    assert (opened.custody_atoms, opened.owed_atoms, opened.health) == (long.custody, long.owed, long.stored_health)
    assert (long.size, long.owed) == (500 * USDC, 400 * USDC)
    assert pool_positions.health(pond.pool, sally.position) == long.health > 11 * DEC // 10
    assert pond.pool.health == long.pool_health
    ratio = pool_positions.liquidation_ratio(pond.pool, sally.position)
    assert ratio == -(-(11 * DEC // 10) * DEC // long.health) < DEC
    pond.passes(HOUR)
    close = pool_positions.quote_close(pond.state, sally.position, pond.exchange.at_us + 1)
    closed = sally.closes()
    assert (closed.repaid_atoms, closed.fee_atoms, closed.returned_atoms, closed.bad_debt_atoms) == (
        close.repaid, close.fee, close.returned, 0,
    )  # fmt: skip
    assert pond.is_conserved()


def test_every_command_ends_with_one_change_of_each_pool_it_touched(pond: Pond) -> None:
    """Whoever follows a pool needs no other event.   [X-14]"""
    sally = pond.party("sally", rowan=10_000, usdc=10_000)
    for command in (
        sally.addition(100 * ROWAN, 100 * USDC), sally.swap("USDC", "ROWAN", USDC), sally.long("ROWAN", 100 * USDC),
        sally.removal(basis_points=5_000),
    ):  # fmt: skip
        sally.does(command)
        (change,) = pond.reported(PoolChanged)
        assert change.pool == pools.view(pond.pool)
    sally.closes()
    (change,) = pond.reported(PoolChanged)
    assert change.pool == pools.view(pond.pool)


# Units


def test_units_are_a_share_and_stand_in_the_ledger(pond: Pond) -> None:
    """⌊r·P/R⌋ in the pool's ratio; a holder's units are on its account, all of them on the book.   [X-3, X-14]"""
    anna = pond.party("anna", rowan=500_000, usdc=500_000)
    assert anna.adds(250_000 * ROWAN, 250_000 * USDC) == 250_000 * ROWAN
    assert pond.reported(LiquidityMoved) == [
        LiquidityMoved(
            anna.subaccount, pond.usdc, 250_000 * ROWAN, 250_000 * USDC, 250_000 * ROWAN, 250_000 * ROWAN
        )
    ]
    asset = pool_units(pond.usdc)
    balances = pond.state.balances
    assert -balances[units_held(anna.subaccount) << 24 | asset] == anna.units == 250_000 * ROWAN
    assert balances[amm_book(pond.usdc) << 24 | asset] == pond.pool.units == 1_250_000 * ROWAN
    assert pools.share(pond.pool, anna.units) == (250_000 * ROWAN, 250_000 * USDC)
    assert anna.removes(basis_points=10_000) == (250_000 * ROWAN, 250_000 * USDC)
    assert anna.units == 0 and anna.subaccount not in pond.pool.holders
    assert pond.is_conserved()


@pytest.mark.parametrize(("rowan_atoms", "usdc_atoms"), [(100 * ROWAN, 0), (0, 100 * USDC), (100 * ROWAN, 7 * USDC)])
def test_one_side_alone_pays_the_fee_of_the_swap_it_saves(pond: Pond, rowan_atoms: int, usdc_atoms: int) -> None:
    """As if the surplus' half were swapped first: in and out at once costs what that swap costs.   [X-3, X-4]"""
    anna = pond.party("anna", rowan=100, usdc=100)
    before = anna.worth()
    units = anna.adds(rowan_atoms, usdc_atoms)
    anna.removes(units=units)
    surplus = abs(Fraction(rowan_atoms * USDC, ROWAN) - usdc_atoms)
    lost = before - anna.worth()
    assert FEE / 2 * surplus * 9 / 10 < lost < FEE / 2 * surplus * 11 / 10 + surplus / 1_000
    assert pond.is_conserved()


def test_providers_share_by_units_whoever_comes_and_goes(pond: Pond) -> None:
    """What one adds or takes leaves the others' shares as they were, or a rounding better.   [X-3, X-4]"""
    anna, bert = pond.party("anna", rowan=9_000, usdc=9_000), pond.party("bert", rowan=9_000, usdc=9_000)
    random = Random(5)
    for _round in range(60):
        value = root_value(pond, pond.lp)
        one = random.choice((anna, bert))
        if random.random() < 0.5 or not one.units:
            one.tries(one.addition(random.randrange(10**11), random.randrange(10**8)))
        else:
            one.tries(one.removal(units=random.randrange(1, one.units + 1)))
        assert root_value(pond, pond.lp) >= value - 1
    assert pond.is_conserved()


def root_value(pond: Pond, party: Party) -> int:
    """√(native · external) of a holder's share, in 1e-9: what no price moves."""
    native, external = pools.depths(pond.pool)
    return isqrt(native * external * 10**18 * party.units**2 // pond.pool.units**2)


# What was earned


def test_what_providers_earned_adds_up_to_what_the_pool_took() -> None:
    """Fees of swaps, opens and closes, interest; rounding takes an atom per change of units at most.   [X-1, X-9]"""
    pond = Pond(rate_min=DEC // 10_000, rate_max=DEC // 10_000, interest_fund_share=35 * DEC // 100)
    trader = pond.party("trader", rowan=300_000, usdc=300_000)
    providers = [pond.party(name, rowan=300_000, usdc=300_000) for name in ("anna", "bert")]
    random, taken, moves = Random(7), [0, 0, 0, 0], 1
    left: list[tuple[int, int, int, int]] = []
    for step in range(150):
        anna = random.choice(providers)
        before = pools.earned(pond.pool, pond.pool.holders[anna.subaccount]) if anna.units else None
        act = random.choice((moves_liquidity, moves_liquidity, swaps, opens, closes))
        outcome = act(pond, anna, trader, random, taken)
        if outcome is not None and outcome.rejection is None:
            add_fees(outcome, taken)
            moves += sum(isinstance(event, LiquidityMoved) for event in outcome.events)
        if before is not None and not anna.units:
            left.append(before)
        if step % 10 == 0:
            for event in pond.until_epoch():
                if isinstance(event, PoolEpochRan):
                    taken[2] += event.native_interest
                    taken[3] += event.external_interest
                else:
                    assert isinstance(event, LongClosed)
                    taken[0 if event.long.is_native_collateral else 1] += event.fee_atoms
    assert all(taken) and moves > 20 and left
    earned = [pools.earned(pond.pool, holder) for holder in pond.pool.holders.values()]
    for which, whole in enumerate(taken):
        shared = sum(each[which] for each in earned + left)
        assert 0 <= whole - shared <= 2 * moves, which
    assert pond.is_conserved()


def moves_liquidity(pond: Pond, anna: Party, trader: Party, random: Random, taken: list[int]) -> Outcome:
    if anna.units and random.random() < 0.5:
        return anna.tries(anna.removal(units=random.choice((anna.units, 1 + anna.units // 2))))
    return anna.tries(anna.addition(random.randrange(10**13), random.randrange(10**10)))


def swaps(pond: Pond, anna: Party, trader: Party, random: Random, taken: list[int]) -> Outcome:
    pays, gets, unit = random.choice((("USDC", "ROWAN", USDC), ("ROWAN", "USDC", ROWAN)))
    return trader.tries(trader.swap(pays, gets, random.randrange(1, 2_000 * unit)))


def opens(pond: Pond, anna: Party, trader: Party, random: Random, taken: list[int]) -> Outcome:
    gets, unit = random.choice((("ROWAN", USDC), ("USDC", ROWAN)))
    return trader.tries(trader.long(gets, random.randrange(10 * unit, 300 * unit), random.choice((3, 9)) * DEC))


def closes(pond: Pond, anna: Party, trader: Party, random: Random, taken: list[int]) -> Outcome | None:
    """The interest of the running epoch is the providers' but for the fund's part."""
    pool = pond.pool
    if not pool.positions:
        return None
    position = trader.position
    paid, funds = position.paid_custody, (pool.native_fund, pool.external_fund)
    outcome = trader.tries(trader.close())
    if outcome.rejection is None:
        side = position.is_native_collateral
        to_fund = (pool.native_fund, pool.external_fund)[side] - funds[side]
        taken[2 + side] += outcome.reply.long.paid_custody_atoms - paid - to_fund
    return outcome


def add_fees(outcome: Outcome, taken: list[int]) -> None:
    """Native and external ones, as events report them."""
    for event in outcome.events:
        if isinstance(event, PoolSwapped):
            taken[event.is_native_paid] += event.fee_atoms
        elif isinstance(event, LongOpened):
            taken[event.long.is_native_collateral] += event.fee_atoms
        elif isinstance(event, LongClosed):
            taken[not event.long.is_native_collateral] += event.fee_atoms


# Bytes


def test_a_snapshot_in_the_middle_gives_the_same_bytes_and_goes_on_the_same() -> None:
    """Positions on both sides, unpaid interest, a fund, providers with earnings, a mean on its way.   [A-6, A-10]"""
    pond = busy()
    content = snapshot.dump(pond.state)
    loaded = snapshot.load(content)
    assert snapshot.dump(loaded) == content
    assert {number: names(position) for number, position in loaded.amm_positions.items()} == {
        number: names(position) for number, position in pond.state.amm_positions.items()
    }
    for number, pool in pond.state.amm_pools.items():
        other = loaded.amm_pools[number]
        mine, its = names(pool), names(other)
        for field in ("positions", "holders"):
            assert {key: names(each) for key, each in mine.pop(field).items()} == {
                key: names(each) for key, each in its.pop(field).items()
            }
        assert mine == its
        assert all(loaded.amm_positions[key] is position for key, position in other.positions.items())
    assert loaded.next_amm_position_id == pond.state.next_amm_position_id > 1
    assert loaded.amm_epoch_due_us == pond.state.amm_epoch_due_us > 0

    # Each goes on with the same commands, and is asked again after every one.
    twin = Pond()
    twin.exchange.state, twin.exchange.at_us, twin.exchange.requests = loaded, pond.exchange.at_us, 10**6
    pond.exchange.requests = 10**6
    for each in (pond, twin):
        go_on(each)
    assert snapshot.dump(twin.state) == snapshot.dump(pond.state)


def parts_of(entry: JournalTransaction) -> tuple[object, ...]:
    """What a transaction says; a compiled one has no words for itself."""
    return entry.kind, entry.memo, entry.postings, entry.batches


def test_replaying_the_commands_gives_the_same_bytes_and_the_same_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the log keeps them, and also when the state goes through bytes now and then.   [A-6, A-10]"""
    recorded: list[tuple[int, bytes, SignedRequest | None, Outcome]] = []
    attempt = Exchange.attempt

    def recording(exchange: Exchange, command: Command, request: SignedRequest | None = None) -> Outcome:
        outcome = attempt(exchange, command, request)
        recorded.append((exchange.at_us, encode(command), request, outcome))
        return outcome

    monkeypatch.setattr(Exchange, "attempt", recording)
    pond = busy()
    assert len(recorded) > 30 and any(outcome.rejection is not None for *_rest, outcome in recorded)
    state = State()
    for place, (at_us, content, request, first) in enumerate(recorded):
        outcome = apply(state, state.sequence + 1, at_us, decode(content), request)
        assert [parts_of(entry) for entry in outcome.journal] == [parts_of(entry) for entry in first.journal], place
        assert outcome.events == first.events, place
        if place % 5 == 0:
            state = snapshot.load(snapshot.dump(state))
    assert snapshot.dump(state) == snapshot.dump(pond.state)


def busy() -> Pond:
    """A pool to which everything happened."""
    pond = Pond()
    pond.set(rate_min=DEC // 1_000, rate_max=DEC // 100)
    anna, bert = pond.party("anna", rowan=10_000, usdc=10_000), pond.party("bert", rowan=900_000, usdc=900_000)
    bert.adds(200_000 * ROWAN, 150_000 * USDC)
    anna.opens("ROWAN", 1_000 * USDC, 9 * DEC)
    anna.opens("USDC", 700 * ROWAN, 4 * DEC)
    anna.opens("ROWAN", 333 * USDC, 2 * DEC)
    pond.until_epoch()
    bert.swaps("USDC", "ROWAN", 20_000 * USDC)
    pond.passes(HOUR)
    pond.set(pays_each_epoch=False)
    bert.removes(basis_points=3_333)
    pond.until_epoch()
    pond.set(pays_each_epoch=True)
    bert.swaps("ROWAN", "USDC", 150_000 * ROWAN)
    pond.passes(2 * HOUR)
    anna.opens("ROWAN", 50 * USDC, 7 * DEC)
    anna.opens("USDC", 50 * ROWAN, 3 * DEC)
    anna.closes()
    anna.refusal(anna.long("ROWAN", USDC, 18 * DEC))
    pond.passes(11)
    assert len(pond.pool.positions) >= 2 and pond.pool.native_fund and len(pond.pool.holders) == 2
    assert any(isinstance(event, LongClosed) for outcome in pond.exchange.outcomes for event in outcome.events)
    return pond


def go_on(pond: Pond) -> None:
    """More of everything, by those who are there."""
    for key, entry in sorted(pond.state.api_keys.items()):
        number = pond.state.users[entry.user_id].subaccount_ids[0]
        commands: list[Command] = [
            SwapAssets(number, pond.rowan, pond.usdc, 10**9), RemoveLiquidity(number, pond.usdc, basis_points=1_234),
        ]  # fmt: skip
        commands += [
            CloseLong(number, each.position_id) for each in pond.pool.positions.values() if each.subaccount_id == number
        ][:1]
        for command in commands:
            pond.attempt(command, pond.exchange.signed(key))
    pond.passes(3 * HOUR)


def names(row: object) -> dict[str, Any]:
    """The slots of a pool, a position or a holder; of a class of the compiled core too."""
    kind = type(row)
    slots: Any = getattr(kind, "__mypyc_attrs__", None) or getattr(kind, "__slots__", ())
    return {name: getattr(row, name) for name in slots}
