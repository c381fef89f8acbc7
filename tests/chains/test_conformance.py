"""Every adapter against the same promises: real transfers are credited once, fakes never, payouts made once."""

from __future__ import annotations

from chains.adapter import Payment
from chains.reconciliation import stop_on_breaks
from tests.chains.conftest import MakeWorld
from tests.chains.world import COIN, GOLD, Net, World

ALICE, BOB = 7, 8


def gold(world: World) -> str:
    return world.tokens[1].contract


# ---- deposits ----


async def test_native_coin_is_credited_at_depth_and_withdrawable_at_finality(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await world.watcher.step()
    tx_id = await net.pay(world.address(ALICE), 5 * net.unit)
    await net.mine()
    await world.watcher.step()
    assert world.states() == ["confirming"]

    await net.mine()
    step = await world.watcher.step()
    assert step.credited == [tx_id]
    assert world.states() == ["credited"]
    assert world.user(ALICE, COIN) == 500_000_000
    assert set(world.book.outpoint_states().values()) == {"provisional"}

    await net.mine(4)
    await world.watcher.step()
    assert world.states() == ["withdrawable"]
    assert set(world.book.outpoint_states().values()) == {"final"}


async def test_a_listed_token_is_credited(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.pay(world.address(ALICE), 3 * 10**18, gold(world))
    await world.settle_down()

    assert world.user(ALICE, GOLD) == 3 * 10**9
    assert world.states() == ["withdrawable"]


async def test_two_deposits_in_one_block_are_two_credits(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    for _ in range(2):
        await net.pay(world.address(ALICE), 10**18, gold(world))
    await net.pay(world.address(ALICE), net.unit)
    await world.settle_down()

    assert world.user(ALICE, GOLD) == 2 * 10**9
    assert world.user(ALICE, COIN) == 10**8


# ---- false deposits   [D-7] ----


async def test_a_failed_receipt_credits_nothing(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    for contract in ("", gold(world)):
        tx_id = await net.fail(world.address(ALICE), net.unit, contract)
        await world.settle_down()
        status = await world.nodes[0].status(tx_id)
        assert status.mined is not None
        assert not status.mined.ok

    assert world.states() == []
    assert world.user(ALICE, COIN) == world.user(ALICE, GOLD) == 0


async def test_a_transfer_that_returns_false_credits_nothing(net: Net, make_world: MakeWorld) -> None:
    world = await make_world("returns false")
    tx_id = await net.pay(world.address(ALICE), 10**18, gold(world))
    await world.settle_down()

    status = await world.nodes[0].status(tx_id)
    assert status.mined is not None
    assert status.mined.ok
    assert world.states() == []
    assert world.user(ALICE, GOLD) == 0


async def test_a_log_without_a_balance_change_is_rejected(net: Net, make_world: MakeWorld) -> None:
    world = await make_world("lies")
    await net.pay(world.address(ALICE), 10**18, gold(world))
    await world.settle_down()

    assert world.states() == ["rejected"]
    assert world.user(ALICE, GOLD) == 0


async def test_a_log_of_a_contract_that_is_not_listed_is_unsupported(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    spoof = await net.deploy("FAKE", "lies")
    await net.pay(world.address(ALICE), 10**18, spoof)
    await world.settle_down()

    assert world.states() == ["unsupported"]
    assert world.user(ALICE, GOLD) == world.user(ALICE, COIN) == 0


async def test_a_token_that_keeps_a_fee_credits_only_what_arrived(net: Net, make_world: MakeWorld) -> None:
    world = await make_world("keeps fee")
    await net.pay(world.address(ALICE), 10 * 10**18, gold(world))
    await net.pay(world.address(ALICE), 20 * 10**18, gold(world))
    await world.settle_down()

    assert world.user(ALICE, GOLD) == 27 * 10**9
    assert await net.balance(world.address(ALICE), gold(world)) == 27 * 10**18
    assert "shortfall" in world.alarm_kinds()


async def test_a_reverted_inner_call_credits_nothing(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.relay([(world.address(ALICE), net.unit, True)])
    await world.settle_down()

    assert world.states() == []
    assert world.user(ALICE, COIN) == await net.balance(world.address(ALICE)) == 0


async def test_an_inner_payment_is_kept_apart_for_an_operator(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.relay([(world.address(ALICE), net.unit, True), (world.address(ALICE), 2 * net.unit, False)])
    await world.settle_down()

    assert world.states() == ["unattributed"]
    assert world.user(ALICE, COIN) == 0
    assert await net.balance(world.address(ALICE)) == 2 * net.unit
    await world.watcher.release(1, "olga")
    await world.watcher.step()
    assert world.user(ALICE, COIN) == 2 * 10**8


async def test_an_unconfirmed_transaction_credits_nothing(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await world.watcher.step()
    await net.pay(world.address(ALICE), net.unit)
    await world.watcher.step()

    assert world.states() == []


# ---- reorgs   [D-5] ----


async def test_an_orphaned_deposit_that_is_included_again_is_credited_once(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.mine(3)
    await net.pay(world.address(ALICE), net.unit)
    await net.pay(world.address(ALICE), 10**18, gold(world))
    await net.mine()
    await world.watcher.step()
    await net.reorg(1, reinclude=False)
    await world.watcher.step()
    assert world.states() == ["orphaned", "orphaned"]

    await world.settle_down()
    assert world.states() == ["withdrawable", "withdrawable"]
    assert (world.user(ALICE, COIN), world.user(ALICE, GOLD)) == (10**8, 10**9)


async def test_a_deposit_that_a_reorg_removes_is_never_credited(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.mine(3)
    tx_id = await net.pay(world.address(ALICE), net.unit)
    await net.mine()
    await world.watcher.step()
    await net.reorg(1, drop=[tx_id])
    await world.settle_down()

    assert world.states() == ["orphaned"]
    assert world.user(ALICE, COIN) == 0


async def test_a_credit_whose_block_is_orphaned_freezes_and_is_restored_when_included_again(
    net: Net, make_world: MakeWorld
) -> None:
    world = await make_world()
    await net.mine(3)
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(2)
    await world.watcher.step()
    assert world.states() == ["credited"]

    await net.reorg(3, reinclude=False)
    await world.watcher.step()
    assert world.states() == ["credited orphaned"]
    assert world.book.frozen == {ALICE}
    assert "credit orphaned" in world.alarm_kinds()

    await world.settle_down()
    assert world.states() == ["withdrawable"]
    assert world.book.frozen == set()
    assert world.user(ALICE, COIN) == 10**8


async def test_a_credit_that_does_not_come_back_is_reversed(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.mine(3)
    tx_id = await net.pay(world.address(ALICE), net.unit)
    await net.mine(2)
    await world.watcher.step()
    await net.reorg(3, drop=[tx_id])
    await world.settle_down(14)

    assert world.states() == ["reversed"]
    assert world.user(ALICE, COIN) == world.book.ledger_balance(net.chain_id, ALICE, COIN) == 0


async def test_a_double_spend_credits_only_the_winner(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.mine(3)
    lost = await net.pay(world.address(ALICE), net.unit)
    await net.mine()
    await world.watcher.step()
    await net.reorg(1, drop=[lost])
    await net.pay(world.address(BOB), net.unit)
    await world.settle_down()

    assert world.user(ALICE, COIN) == 0
    assert world.user(BOB, COIN) == 10**8


# ---- payouts   [D-8] ----


async def test_a_payout_arrives_once_and_is_settled_when_final(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawals = [
        world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger),
        world.book.request(ALICE, net.chain_id, GOLD, 10**9, stranger),
    ]
    await world.payouts.step()
    await net.mine()
    await world.payouts.step()
    assert [world.book.withdrawal_state(w) for w in withdrawals] == ["approved", "approved"]

    await world.pay_out(6)
    assert [world.book.withdrawal_state(w) for w in withdrawals] == ["paid", "paid"]
    assert await net.balance(stranger) == net.unit
    assert await net.balance(stranger, gold(world)) == 10**18


async def test_a_payout_that_a_reorg_throws_out_is_sent_again_not_twice(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.payouts.step()
    await net.mine()
    await world.payouts.step()
    tx_id = (await world.outbox.unfinished())[0].tx_id
    await net.reorg(1, drop=[tx_id])
    assert await net.balance(stranger) == 0

    await world.pay_out()
    assert await net.balance(stranger) == net.unit


async def test_a_stuck_payout_gets_a_higher_bid_at_the_same_nonce(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.payouts.step()
    await net.crowd_out()
    await net.mine()
    await world.payouts.step()
    assert await net.balance(stranger) == 0

    world.clock.now_us += 61_000_000
    await world.payouts.step()
    tried = attempts_of(world)
    assert len(tried) == 2
    assert len({row.nonce for row in tried}) == 1
    assert all(8 * int(getattr(tried[1], name)) >= 9 * int(getattr(tried[0], name))
               for name in ("max_fee", "priority_fee"))  # fmt: skip

    await world.pay_out(12)
    assert world.book.withdrawal_state(withdrawal) == "paid"
    assert await net.balance(stranger) == net.unit


async def test_a_payout_that_fails_on_chain_releases_the_hold_once_final(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, GOLD, 10**9, stranger)
    fees = world.book.balance("fees", COIN)
    await net.turn(gold(world), "reverts")
    await world.payouts.step()
    await net.mine()
    await world.payouts.step()
    assert world.book.withdrawal_state(withdrawal) == "approved"

    await world.pay_out(6)
    assert world.book.withdrawal_state(withdrawal) == "failed"
    assert world.user(ALICE, GOLD) == 5 * 10**9
    assert world.book.balance("fees", COIN) > fees


async def test_an_empty_hot_wallet_pays_nothing_and_says_so(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await make_world(), net.stranger()
    await net.pay(world.address(ALICE), 5 * net.unit)
    await world.settle_down()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.pay_out(3)

    assert world.book.withdrawal_state(withdrawal) == "approved"
    assert "hot wallet low" in world.alarm_kinds()
    assert await net.balance(stranger) == 0


async def test_a_token_that_returns_false_is_not_a_paid_withdrawal(net: Net, make_world: MakeWorld) -> None:
    world = await funded(net, make_world)
    stranger = net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, GOLD, 10**9, stranger)
    await net.turn(gold(world), "returns false")
    await world.pay_out()

    assert world.book.withdrawal_state(withdrawal) == "failed"
    assert world.user(ALICE, GOLD) == 5 * 10**9
    assert await net.balance(stranger, gold(world)) == 0


async def test_a_cancelled_payout_is_released_when_the_cancellation_is_final(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    await world.payouts.step()
    await world.payouts.cancel(withdrawal)
    await world.pay_out()

    assert world.book.withdrawal_state(withdrawal) == "failed"
    assert await net.balance(stranger) == 0
    assert world.user(ALICE, COIN) == 5 * 10**8


async def test_a_payout_to_a_deposit_address_is_a_deposit_there(net: Net, make_world: MakeWorld) -> None:
    world = await funded(net, make_world)
    world.book.request(ALICE, net.chain_id, COIN, 10**8, world.address(BOB))
    await world.pay_out(12)

    assert world.user(BOB, COIN) == 10**8


# ---- sweeps and reconciliation   [D-10, D-11] ----


async def test_deposit_addresses_are_swept_and_everything_reconciles(net: Net, make_world: MakeWorld) -> None:
    world = await funded(net, make_world)
    assert (await world.reconcile()).breaks == []
    await world.sweep()

    assert world.states().count("swept") == 2
    assert await net.balance(world.address(ALICE), gold(world)) == 0
    assert await net.balance(world.address(0), gold(world)) == 15 * 10**18
    assert world.book.ledger_balance(net.chain_id, 0, GOLD) == 15 * 10**9
    result = await world.reconcile()
    assert result.breaks == []
    assert len(result.lines) == 4


async def test_every_block_of_a_busy_day_reconciles(net: Net, make_world: MakeWorld) -> None:
    world, stranger = await funded(net, make_world), net.stranger()
    await net.relay([(world.address(BOB), net.unit, False)])
    await net.pay(world.address(BOB), net.unit + 123)
    world.book.request(ALICE, net.chain_id, COIN, 10**8, stranger)
    world.book.request(ALICE, net.chain_id, GOLD, 10**8, world.address(BOB))
    reasons: set[str] = set()
    for _ in range(16):
        await world.payouts.step()
        await world.sweeper.step()
        await net.mine()
        await world.watcher.step()
        result = await world.reconcile()
        assert result.breaks == []
        reasons |= {reason for line in result.lines for reason in line.explained}

    assert "unattributed" in reasons
    assert await net.balance(stranger) == net.unit


async def test_missing_coins_are_a_break_with_an_age_and_stop_withdrawals(net: Net, make_world: MakeWorld) -> None:
    world = await funded(net, make_world)
    hot = world.address(0)
    node = world.nodes[0]
    payment = Payment(hot, net.stranger(), "", net.unit)
    nonce = await node.mined_nonces(hot, await node.tip())
    stolen = world.signer.sign(net.chain_id, 0, node.build(payment, nonce, await node.quote(payment)))
    await node.broadcast(stolen.raw)
    await world.settle_down()

    first = await world.reconcile()
    assert [(line.wallet, line.asset_id) for line in first.breaks] == [(0, COIN)]
    assert first.breaks[0].difference < -net.unit
    world.clock.now_us += 1_000_000
    again = await world.reconcile()
    assert again.at_us - (again.breaks[0].since_us or 0) == 1_000_000

    assert await stop_on_breaks(world.book, again, {COIN: 10**12}) == []
    assert await stop_on_breaks(world.book, again, {COIN: 10**7}) == [COIN]
    withdrawal = world.book.request(ALICE, net.chain_id, COIN, 10**8, net.stranger())
    await world.pay_out(2)
    assert world.book.withdrawal_state(withdrawal) == "requested"


# ---- the adapter itself ----


async def test_a_read_is_pinned_to_its_block(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    node, stranger = world.nodes[0], net.stranger()
    before = await node.tip()
    await net.pay(stranger, net.unit)
    await net.mine()

    assert await node.balance(stranger, "", before) == 0
    assert await node.balance(stranger, "", await node.tip()) == net.unit


async def test_broadcasting_twice_is_harmless(net: Net, make_world: MakeWorld) -> None:
    world = await funded(net, make_world)
    node, stranger = world.nodes[0], net.stranger()
    hot = world.address(0)
    payment = Payment(hot, stranger, "", net.unit)
    nonce = await node.mined_nonces(hot, await node.tip())
    signed = world.signer.sign(net.chain_id, 0, node.build(payment, nonce, await node.quote(payment)))

    assert (await node.broadcast(signed.raw)).verdict == "accepted"
    assert (await node.broadcast(signed.raw)).verdict == "known"
    await net.mine()
    assert (await node.broadcast(signed.raw)).verdict in ("known", "nonce used")
    assert await net.balance(stranger) == net.unit


async def test_addresses_have_one_spelling(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    node, address = world.nodes[0], world.address(ALICE)

    assert node.normalize(address) == address
    assert node.normalize(address[:-1]) is None
    assert node.normalize(address + "0") is None
    assert node.normalize("") is None
    assert node.normalize("0x" + "0" * 40) is None


# ---- arrangements ----


async def funded(net: Net, make_world: MakeWorld, **options: object) -> World:
    """An exchange whose hot wallet can pay: the operator's coins, and deposits that alice may withdraw."""
    world: World = await make_world(**options)
    await net.pay(world.address(0), 20 * net.unit)
    await net.pay(world.address(0), 10 * 10**18, gold(world))
    await net.pay(world.address(ALICE), 5 * net.unit)
    await net.pay(world.address(ALICE), 5 * 10**18, gold(world))
    await world.settle_down()
    assert world.book.ledger_balance(net.chain_id, 0, GOLD) == 10 * 10**9
    return world


def attempts_of(world: World) -> list:  # type: ignore[type-arg]
    from chains.schema import attempts

    return sorted(world.rows(attempts), key=lambda row: (row.nonce, row.attempt))
