"""Dust, minimums, rounding, limits, screening: what becomes of amounts on their way.   [D-5, D-8]"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains import schema
from chains.amounts import credited, fee_atoms
from chains.decisions import Depth
from chains.faucet import drip
from chains.payouts import DAY_US, Limits
from chains.watcher import Watcher
from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, GOLD, World, token

ALICE, BOB = 7, 8
FINE = token(9, "FINE", 1, "fine", 18, 9)


@given(st.integers(0, 10**30), st.integers(-(10**12), 10**12), st.integers(0, 10**12))
def test_nothing_is_lost_between_atoms_and_dust(received: int, dust: int, minimum: int) -> None:
    atoms, left = credited(received, dust, FINE, minimum)

    assert atoms * FINE.base_per_atom + left == received + dust
    assert atoms == 0 or (atoms >= minimum and 0 <= left < FINE.base_per_atom)


@given(st.lists(st.integers(0, 10**15), max_size=20))
def test_fees_are_booked_in_whole_atoms_and_never_short(fees: list[int]) -> None:
    left = booked = 0
    for fee in fees:
        atoms, left = fee_atoms(fee, left, FINE)
        booked += atoms
        assert 0 <= left < FINE.base_per_atom

    assert booked * FINE.base_per_atom == sum(fees) + left


def make(tmp_path: Path, *, minimum: int = 0, **options: object) -> tuple[SimulatedNet, World]:
    net = SimulatedNet()
    gold = net.chain.deploy("GOLD", decimals=12)
    tokens = [token(COIN, "COIN", 1, "", 9, 9, minimum=minimum), token(GOLD, "GOLD", 1, gold, 12, 9, minimum=minimum)]
    return net, World(tmp_path, net, tokens, **options)  # type: ignore[arg-type]


async def test_parts_of_an_atom_add_up_until_they_are_one(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    for amount in (1_600, 300, 200):
        await net.pay(world.address(ALICE), amount, "GOLD")
        await world.settle_down()

    assert world.user(ALICE, GOLD) == 2
    assert [row.base for row in world.rows(schema.dust)] == ["100"]
    assert world.states() == ["withdrawable", "dust", "withdrawable"]
    assert (await world.reconcile()).breaks == []


async def test_deposits_below_the_minimum_wait_for_company_and_for_finality(tmp_path: Path) -> None:
    net, world = make(tmp_path, minimum=1_000)
    await net.pay(world.address(ALICE), 600)
    await net.mine(3)
    await world.watcher.step()
    assert world.states() == ["confirming"], "dust is only counted when no reorg can take it back"

    await world.settle_down()
    assert world.states() == ["dust"]
    assert world.user(ALICE, COIN) == 0
    await net.pay(world.address(BOB), 600)
    await net.pay(world.address(ALICE), 700)
    await world.settle_down()
    assert world.user(ALICE, COIN) == 1_300
    assert world.user(BOB, COIN) == 0
    assert (await world.reconcile()).breaks == []


async def test_a_reversed_deposit_takes_its_dust_along(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    await net.mine(3)
    gone = await net.pay(world.address(ALICE), 1_600, "GOLD")
    await net.mine(2)
    await world.watcher.step()
    assert world.user(ALICE, GOLD) == 1
    await net.reorg(3, drop=[gone])
    await world.settle_down(14)

    assert world.states() == ["reversed"]
    assert [row.base for row in world.rows(schema.dust)] == ["0"]
    assert (await world.reconcile()).breaks == []


async def test_a_large_deposit_waits_for_finality(tmp_path: Path) -> None:
    """[D-6]"""
    net, world = make(tmp_path, depth=Depth(final_from_atoms={COIN: 10**9}))
    await net.pay(world.address(ALICE), 10**9)
    await net.pay(world.address(BOB), 10**9 - 1)
    await net.mine(3)
    await world.watcher.step()
    assert (world.user(ALICE, COIN), world.user(BOB, COIN)) == (0, 10**9 - 1)

    await world.settle_down()
    assert world.user(ALICE, COIN) == 10**9


async def test_a_blocked_sender_is_held(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    world.watcher = Watcher(
        world.engine, world.nodes, world.book, world.wallets, clock_us=world.clock,
        blocked_senders={net.chain.faucet_address},
    )  # fmt: skip
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()

    assert world.states() == ["held"]
    assert world.user(ALICE, COIN) == 0
    result = await world.reconcile()
    assert result.breaks == []
    assert result.lines[-1].explained == {"held": 10**9}
    await world.watcher.release(1, "olga")
    await world.watcher.step()
    assert world.user(ALICE, COIN) == 10**9


async def test_a_credit_that_the_exchange_refuses_is_held_and_stops_no_other(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    world.book.closed = {ALICE}
    await net.pay(world.address(ALICE), 5)
    await net.pay(world.address(BOB), 6)
    await world.settle_down()
    assert world.states() == ["held", "withdrawable"]
    assert world.user(BOB, COIN) == 6
    assert "exchange refused" in world.alarm_kinds()

    world.book.closed = set()
    await world.watcher.release(1, "olga")
    await world.watcher.step()
    assert world.user(ALICE, COIN) == 5
    assert (await world.reconcile()).breaks == []


async def test_the_faucet_is_spendable_at_once_and_has_no_minimum(tmp_path: Path) -> None:
    net, world = make(tmp_path, minimum=1_000)
    world.watcher = Watcher(
        world.engine, world.nodes, world.book, world.wallets, clock_us=world.clock,
        no_minimum_from={net.chain.faucet_address},
    )  # fmt: skip
    await drip(net.chain, world.watcher, world.address(ALICE), "", 5)

    assert world.user(ALICE, COIN) == 5
    assert set(world.book.outpoint_states().values()) == {"final"}


async def test_what_a_reorg_may_take_back_is_not_swept(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    await net.pay(world.address(0), 10**9)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    await net.pay(world.address(ALICE), 7 * 10**9)
    await net.mine(2)
    await world.watcher.step()
    assert world.states() == ["funded", "withdrawable", "credited"]
    await world.sweeper.step()

    swept = [int(row.amount) for row in world.rows(schema.nonces)]
    assert len(swept) == 1
    assert 0 < swept[0] < 10**9


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(per_transaction={COIN: 99}), "in one transaction, at most 99"),
        (Limits(per_day_subaccount={COIN: 199}), "200 atoms of this subaccount in 24 hours, at most 199"),
        (Limits(per_day_asset={COIN: 199}), "200 atoms of this asset in 24 hours, at most 199"),
    ],
)
async def test_a_payout_over_a_limit_waits_for_an_operator(tmp_path: Path, limits: Limits, words: str) -> None:
    net, world = make(tmp_path, limits=limits)
    await net.pay(world.address(0), 10**9)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    ids = [world.book.request(ALICE, 1, COIN, 100, net.stranger()) for _ in range(2)]
    await world.pay_out()

    waiting = [row for row in world.rows(schema.payouts) if row.state == "manual"]
    assert words in waiting[0].reason
    assert world.book.withdrawal_state(ids[1]) == "requested"
    await world.payouts.approve(ids[1], "olga")
    await world.pay_out()
    assert world.book.withdrawal_state(ids[1]) == "paid"


async def test_an_operators_own_command_lets_a_waiting_payout_go(tmp_path: Path) -> None:
    net, world = make(tmp_path, limits=Limits(per_transaction={COIN: 99}))
    await net.pay(world.address(0), 10**9)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    seen, unseen = (world.book.request(ALICE, 1, COIN, 100, net.stranger()) for _ in range(2))
    await world.book.approve_withdrawal(withdrawal_id=unseen, attach=lambda _connection: None)
    await world.pay_out()
    assert world.book.withdrawal_state(seen) == "requested"

    await world.book.approve_withdrawal(withdrawal_id=seen, attach=lambda _connection: None)
    await world.pay_out()

    assert world.book.withdrawal_state(unseen) == "paid"
    assert world.book.withdrawal_state(seen) == "paid"


async def test_a_daily_limit_ends_with_the_day_and_an_operator_may_refuse(tmp_path: Path) -> None:
    net, world = make(tmp_path, limits=Limits(per_day_asset={COIN: 150}))
    await net.pay(world.address(0), 10**9)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    ids = [world.book.request(ALICE, 1, COIN, 100, net.stranger()) for _ in range(2)]
    await world.pay_out()
    await world.payouts.reject(ids[1], "olga", "sanctioned")
    assert world.book.withdrawal_state(ids[1]) == "rejected"
    assert world.user(ALICE, COIN) == 10**9 - 100

    world.clock.now_us += DAY_US + 1
    last = world.book.request(ALICE, 1, COIN, 100, net.stranger())
    await world.pay_out()
    assert world.book.withdrawal_state(last) == "paid"


async def test_a_payout_to_nowhere_or_to_ourselves_is_refused(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    ids = [world.book.request(ALICE, 1, COIN, 100, address) for address in ("nonsense", world.address(0))]
    await world.pay_out(2)

    assert [world.book.withdrawal_state(withdrawal) for withdrawal in ids] == ["rejected", "rejected"]
    assert world.user(ALICE, COIN) == 10**9


async def test_a_payout_that_the_signer_refuses_blocks_no_other(tmp_path: Path) -> None:
    net, world = make(tmp_path, most=1_000)
    await net.pay(world.address(0), 10**9)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    large, small = (world.book.request(ALICE, 1, COIN, atoms, net.stranger()) for atoms in (1_001, 500))
    await world.pay_out()

    assert world.book.withdrawal_state(small) == "paid"
    assert world.book.withdrawal_state(large) == "approved"
    assert [row.nonce for row in world.rows(schema.nonces)] == [0]
    refusals = [row for row in world.rows(schema.alarms) if row.kind == "signer refused"]
    assert [row.count for row in refusals] == [1], "what was refused waits for an operator"

    await world.payouts.approve(large, "olga")
    await world.pay_out(1)
    assert [row.count for row in world.rows(schema.alarms) if row.kind == "signer refused"] == [2]


async def test_a_foreign_use_of_the_hot_key_is_an_alarm_and_never_a_second_payment(tmp_path: Path) -> None:
    net, world = make(tmp_path)
    await net.pay(world.address(0), 10**9)
    await net.pay(world.address(ALICE), 10**9)
    await world.settle_down()
    stranger = net.stranger()
    withdrawal = world.book.request(ALICE, 1, COIN, 100, stranger)
    await world.payouts.step()
    ours = (await world.outbox.unfinished())[0]
    node = world.nodes[0]
    from chains import keys, simulated

    net.chain.drop([row.tx_id for row in world.rows(schema.attempts)])
    thief = keys.ed25519_key(bytes(range(64)), 0)
    assert simulated.address_of(thief) == world.address(0)
    net.chain.send(thief, simulated.Pay(net.stranger(), 1), nonce=ours.nonce)
    await world.pay_out()

    assert world.book.withdrawal_state(withdrawal) == "approved"
    assert "nonce used by a stranger" in world.alarm_kinds()
    assert [row.state for row in world.rows(schema.nonces)] == ["stuck"]
    assert await net.balance(stranger) == 0
    assert await node.mined_nonces(world.address(0), await node.tip()) == 1
