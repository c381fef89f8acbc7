"""Whoever can write to the database, and has no key, gets nothing paid, credited or explained.   [D-8, D-10, D-11]"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from chains import schema
from chains.adapter import Payment
from chains.outbox import Sending
from tests.chains.conftest import MakeWorld
from tests.chains.test_conformance import attempts_of, funded, gold
from tests.chains.world import COIN, GOLD, Net, World

ALICE, BOB = 7, 8


def write(world: World, statement: Any) -> None:
    """What the attacker does: any statement, on any table."""
    with world.engine.begin() as connection:
        connection.execute(statement)


def forged(world: World, reference: str, purpose: str, recipient: str, amount: int, **other: Any) -> dict[str, Any]:
    return {
        "chain_id": world.net.chain_id, "wallet": 0, "nonce": 0, "reference": reference, "purpose": purpose,
        "asset_id": COIN, "contract": "", "recipient": recipient, "recipient_wallet": None, "amount": str(amount),
        "state": Sending.RESERVED, "outcome": "", "tx_id": "", "height": 0, "fee": "0", "reserved_at_us": 1,
    } | other  # fmt: skip


# ---- payments ----


@pytest.mark.parametrize(
    ("reference", "purpose", "to_wallet"),
    [
        ("gift:1", "gift", None),
        ("withdrawal:1", "withdrawal", None),
        ("withdrawal:999", "withdrawal", None),
        ("withdrawal:x", "withdrawal", None),
        ("sweep:0:0", "sweep", 0),
        ("topup:8:0", "topup", BOB),
        ("gap:0:0", "gap", 0),
    ],
)
async def test_a_written_payment_is_never_signed(
    net: Net, make_world: MakeWorld, reference: str, purpose: str, to_wallet: int | None
) -> None:
    world, thief = await funded(net, make_world), net.stranger()
    victim = net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, victim)
    row = forged(world, reference, purpose, thief, net.unit, recipient_wallet=to_wallet)
    write(world, sa.insert(schema.nonces).values(row))
    world.restart()
    await world.pay_out(12)

    assert await net.balance(thief) == 0
    assert "unjustified payment" in world.alarm_kinds()
    assert world.book.withdrawal_state(withdrawal) == "paid", "the real payment still goes"
    assert await net.balance(victim) == net.unit


async def test_a_written_payment_under_later_ones_leaves_no_gap(net: Net, make_world: MakeWorld) -> None:
    world, thief, friend = await funded(net, make_world), net.stranger(), net.stranger()
    write(world, sa.insert(schema.nonces).values(forged(world, "gift:0", "gift", thief, net.unit)))
    filler = forged(world, "topup:8:0", "topup", world.address(BOB), net.unit, nonce=1, recipient_wallet=BOB)
    write(world, sa.insert(schema.nonces).values(filler))
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, friend)
    world.restart()
    await world.pay_out(14)
    await world.sweeper.step()

    assert await net.balance(thief) == 0
    assert world.book.withdrawal_state(withdrawal) == "paid"


@pytest.mark.parametrize("state", [Sending.RESERVED, Sending.SIGNED])
@pytest.mark.parametrize("changed", ["recipient", "amount", "asset"])
async def test_a_redirected_withdrawal_does_not_reach_the_thief(
    net: Net, make_world: MakeWorld, changed: str, state: Sending
) -> None:
    """The row of a real, approved withdrawal is there before the payout, or is changed after it was sent."""
    world, thief, victim = await funded(net, make_world), net.stranger(), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, victim)
    values = {
        "recipient": {"recipient": thief},
        "amount": {"recipient": victim, "amount": str(2 * net.unit)},
        "asset": {"recipient": victim, "asset_id": GOLD, "contract": gold(world)},
    }[changed]
    if state == Sending.RESERVED:
        row = forged(world, f"withdrawal:{withdrawal}", "withdrawal", victim, net.unit) | values
        write(world, sa.insert(schema.nonces).values(row))
    else:
        await world.payouts.step()
        write(world, sa.update(schema.nonces).values(values))
    world.restart()
    world.clock.now_us += 120_000_000
    await world.pay_out()

    assert await net.balance(thief) == await net.balance(thief, gold(world)) == 0
    assert await net.balance(victim, gold(world)) == 0
    assert await net.balance(victim) <= net.unit
    assert world.alarm_kinds() & {"unjustified payment", "stored bytes", "reference taken"}


async def test_a_row_in_the_way_of_a_send_is_refused(net: Net, make_world: MakeWorld) -> None:
    world, thief, victim = await funded(net, make_world), net.stranger(), net.stranger()
    from chains.outbox import PaymentOrder

    await world.book.approve_withdrawal(
        withdrawal_id=world.book.request(ALICE, net.chain_id, COIN, 10**8, victim), attach=lambda _connection: None
    )
    write(world, sa.insert(schema.nonces).values(forged(world, "withdrawal:1", "withdrawal", thief, net.unit)))
    assert not await world.outbox.send(PaymentOrder("withdrawal:1", "withdrawal", 0, COIN, "", victim, net.unit))

    assert "reference taken" in world.alarm_kinds()
    assert attempts_of(world) == []


async def test_an_outcome_in_the_database_alone_releases_no_hold(net: Net, make_world: MakeWorld) -> None:
    """A paid withdrawal that is called failed or cancelled would be paid back to the user as well."""
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.payouts.step()
    lie = {"state": Sending.FINAL, "outcome": "failed", "tx_id": attempts_of(world)[0].tx_id}
    write(world, sa.update(schema.nonces).values(lie))
    write(world, sa.update(schema.attempts).values(cancels=True))
    await world.pay_out()

    assert world.book.withdrawal_state(withdrawal) == "paid"
    assert world.user(ALICE, COIN) == 4 * 10**8
    assert await net.balance(stranger) == net.unit
    assert "stored outcome" in world.alarm_kinds()


async def test_a_payment_whose_rows_were_deleted_is_not_made_again(net: Net, make_world: MakeWorld) -> None:
    """The signer's own file remembers each named payment: a second nonce for it is refused."""
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.payouts.step()
    await net.mine()
    write(world, sa.delete(schema.attempts))
    used = {"reference": "gap:0:0", "purpose": "gap", "state": Sending.SETTLED, "amount": "0"}
    write(world, sa.update(schema.nonces).values(used))
    write(world, sa.update(schema.payouts).values(state="approved"))
    world.restart()
    await world.pay_out()

    assert await net.balance(stranger) == net.unit
    assert world.book.withdrawal_state(withdrawal) == "approved", "a human has to look"
    assert "signer refused" in world.alarm_kinds()


async def test_foreign_bytes_in_the_database_are_not_ours(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.payouts.step()
    await net.mine()
    write(world, sa.update(schema.attempts).values(raw=b"\x02junk"))
    await world.pay_out(2)

    assert world.book.withdrawal_state(withdrawal) == "approved"
    assert "stored bytes" in world.alarm_kinds()


async def test_a_deposit_address_in_the_database_is_not_handed_out(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    assert world.address(ALICE)
    thief = net.stranger()
    write(world, sa.update(schema.addresses).filter_by(wallet=ALICE).values(address=thief))
    world.restart()

    from chains.wallets import WrongAddress

    with pytest.raises(WrongAddress):
        world.address(ALICE)


# ---- deposits ----


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("a second index", {"idx": 7}),
        ("more", {"received": "77" + 18 * "0", "amount": "77" + 18 * "0", "idx": 7}),
        ("another transaction", {"tx_id": "nothing"}),
        ("another wallet", {"wallet": BOB, "idx": 9}),
        ("another asset", {"asset_id": GOLD, "idx": 9}),
    ],
)
async def test_a_written_deposit_is_held_and_never_credited(
    net: Net, make_world: MakeWorld, kind: str, change: dict[str, Any]
) -> None:
    world = await make_world()
    await net.pay(world.address(ALICE), net.unit)
    world.address(BOB)
    await world.settle_down()
    real = world.rows(schema.deposits)[0]._asdict()
    write(world, sa.insert(schema.deposits).values(real | {"id": 999, "state": "seen", "atoms": 0, "final": False}
                                                   | change))  # fmt: skip
    world.restart()
    await world.settle_down()

    assert world.user(ALICE, COIN) == 10**8
    assert world.user(BOB, COIN) == world.user(ALICE, GOLD) == 0
    assert {row.id: row.state for row in world.rows(schema.deposits)}[999] == "held"
    assert "deposit not on chain" in world.alarm_kinds()


async def test_a_changed_deposit_is_held(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.pay(world.address(ALICE), net.unit)
    await net.mine()
    await world.watcher.step()
    assert world.states() == ["confirming"]
    write(world, sa.update(schema.deposits).values(received=str(9 * net.unit), amount=str(9 * net.unit)))
    await world.settle_down()

    assert world.user(ALICE, COIN) == 0
    assert world.states() == ["held"]


async def test_coins_of_an_address_that_is_not_ours_are_not_credited(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    world.address(ALICE)
    thief = net.stranger()
    write(world, sa.update(schema.addresses).filter_by(wallet=ALICE).values(address=thief))
    world.restart()
    await net.pay(thief, net.unit)
    await world.settle_down()

    assert world.user(ALICE, COIN) == 0
    assert world.states() == ["held"]


async def test_written_dust_is_not_credited(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    write(world, sa.insert(schema.dust).values(
        chain_id=net.chain_id, subaccount_id=ALICE, asset_id=COIN, base=str(1_000 * net.unit)))
    await net.pay(world.address(ALICE), net.unit)
    await world.settle_down()

    assert world.user(ALICE, COIN) == 0
    assert world.states() == ["held"]


async def test_a_deposit_that_is_called_gone_is_not_taken_back(net: Net, make_world: MakeWorld) -> None:
    from chains.deposits import UNTOLD

    world = await make_world()
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(2)
    await world.watcher.step()
    assert world.user(ALICE, COIN) == 10**8
    write(world, sa.update(schema.deposits).values(state="credited orphaned", reason=UNTOLD))
    await world.settle_down(20)

    assert world.book.frozen == set()
    assert world.user(ALICE, COIN) == 10**8
    assert "deposit is not gone" in world.alarm_kinds()

    write(world, sa.update(schema.deposits).values(block_hash="gone", reason=UNTOLD))
    await world.settle_down(20)
    assert world.user(ALICE, COIN) == 10**8


# ---- reconciliation   [D-11] ----


async def stolen(world: World, net: Net) -> int:
    """Base units that a thief with the hot key took: what every forged row below wants to explain away."""
    node, hot = world.nodes[0], world.address(0)
    nonce = await node.mined_nonces(hot, await node.tip())
    payment = Payment(hot, net.stranger(), gold(world), 10**18)
    taken = world.signer.sign(net.chain_id, 0, node.build(payment, nonce, await node.quote(payment)))
    await node.broadcast(taken.raw)
    await world.settle_down()
    row = forged(world, "gift:1", "gift", payment.recipient, 10**18, nonce=nonce, asset_id=GOLD, contract=gold(world),
                 state=Sending.SIGNED)  # fmt: skip
    attempt = {
        "chain_id": net.chain_id, "tx_id": taken.tx_id, "wallet": 0, "nonce": nonce, "attempt": 0, "cancels": False,
        "raw": taken.raw, "max_fee": "1", "priority_fee": "1", "gas": 1, "signed_at_us": 1, "reply": "",
    }  # fmt: skip
    write(world, sa.insert(schema.nonces).values(row))
    write(world, sa.insert(schema.attempts).values(attempt))
    return 10**18


def unexplained(result: Any, asset_id: int) -> tuple[int, str]:
    line = next(line for line in result.lines if (line.wallet, line.asset_id) == (0, asset_id))
    return line.difference, " ".join(line.doubts)


@pytest.mark.parametrize("state", ["signed", "mined", "final", "settled", "stuck"])
async def test_a_payout_that_nobody_asked_for_is_a_break(net: Net, make_world: MakeWorld, state: str) -> None:
    world = await funded(net, make_world)
    amount = await stolen(world, net)
    write(world, sa.update(schema.nonces).values(state=state, height=10**9 if state == "settled" else 1))
    difference, words = unexplained(await world.reconcile(), GOLD)

    assert difference == -amount
    assert ("nobody asks for" in words) == (state != "settled")


@pytest.mark.parametrize("table", ["rounding", "dust", "held", "credited", "credited orphaned", "move"])
async def test_no_written_row_explains_what_is_missing(net: Net, make_world: MakeWorld, table: str) -> None:
    world = await funded(net, make_world)
    amount = await stolen(world, net)
    write(world, sa.delete(schema.attempts))
    write(world, sa.delete(schema.nonces))
    key = {"chain_id": net.chain_id, "asset_id": GOLD, "base": str(-amount)}
    if table == "rounding":
        write(world, sa.delete(schema.rounding))
        write(world, sa.insert(schema.rounding).values(wallet=0, **key))
    elif table == "dust":
        write(world, sa.insert(schema.dust).values(subaccount_id=0, **key))
    elif table == "move":
        lie = forged(world, "sweep:7:0", "sweep", world.address(0), amount, asset_id=GOLD, contract=gold(world),
                     state=Sending.SETTLED, height=10**9, outcome="paid", tx_id="x")  # fmt: skip
        write(world, sa.insert(schema.nonces).values(lie | {"wallet": ALICE, "recipient_wallet": 0}))
    else:
        real = next(row for row in world.rows(schema.deposits) if (row.wallet, row.asset_id) == (0, GOLD))
        received = str(-amount if table == "held" else amount)
        lie = real._asdict() | {"id": 999, "idx": 77, "received": received, "state": table, "height": 10**9}
        write(world, sa.insert(schema.deposits).values(lie))
    result = await world.reconcile()

    assert unexplained(result, GOLD)[0] == -amount
    assert table == "held" or table == "move" or unexplained(result, GOLD)[1], "the break says which row it is"
