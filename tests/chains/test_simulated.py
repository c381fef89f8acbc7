"""The simulated chain keeps the rules it promises: fees, nonces, replacement, reorgs, persistence.   [D-2]"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from chains import base58, simulated
from chains.adapter import Fee, Moved
from chains.simulated import Pay, SimulatedChain, SimulatedTransaction, address_of

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ME = address_of(KEY)
YOU = address_of(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))


@pytest.fixture
def chain() -> SimulatedChain:
    chain = SimulatedChain(seed="test")
    chain.faucet(ME, "", 10**12)
    chain.mine()
    return chain


def test_the_same_seed_and_the_same_deeds_give_the_same_blocks() -> None:
    def tip() -> str:
        chain = SimulatedChain(seed="s")
        chain.faucet(ME, "", 5)
        return chain.mine(3).hash

    assert tip() == tip()


def test_a_restart_finds_the_chain_again(tmp_path: Path) -> None:
    first = SimulatedChain(tmp_path / "sim.db")
    first.deploy("GOLD", decimals=6)
    first.faucet(ME, "GOLD", 7)
    first.mine(2)
    waiting = first.faucet(ME, "", 9)
    tip = first.tip()
    first.close()

    second = SimulatedChain(tmp_path / "sim.db")
    assert second.tip() == tip
    assert second.balance(ME, "GOLD") == 7
    assert second.transaction(waiting) is not None
    second.deploy("GOLD", decimals=6)
    second.mine()
    assert (second.balance(ME), second.balance(ME, "GOLD")) == (9, 7)


def test_a_forged_or_foreign_transaction_is_refused(chain: SimulatedChain) -> None:
    other = SimulatedChain(seed="other")
    body = SimulatedTransaction(chain.network, ME, 0, 2_000, 1, 1, Pay(YOU, 1))
    stranger = Ed25519PrivateKey.generate()
    _, forged = simulated.sign(simulated.encode(body), stranger)
    _, good = simulated.sign(simulated.encode(body), KEY)

    assert "invalid" in chain.accept(forged).words
    assert "invalid" in chain.accept(b"nonsense").words
    assert "wrong network" in other.accept(good).words
    assert chain.accept(good).verdict == "accepted"
    assert chain.accept(good).verdict == "known"


@pytest.mark.parametrize(
    "action", [Pay(YOU, -1), simulated.TransferToken("GOLD", YOU, -1), simulated.Relay((simulated.InnerCall(YOU, -1),))]
)
def test_nobody_pays_less_than_nothing(chain: SimulatedChain, action: Pay) -> None:
    with pytest.raises(ValueError, match="below zero"):
        chain.send(KEY, action)


def test_nonces_go_in_order_and_a_gap_waits(chain: SimulatedChain) -> None:
    chain.send(KEY, Pay(YOU, 1), nonce=1)
    chain.mine()
    assert chain.balance(YOU) == 0

    chain.send(KEY, Pay(YOU, 2), nonce=0)
    chain.mine()
    assert chain.balance(YOU) == 3
    with pytest.raises(ValueError, match="nonce too low"):
        chain.send(KEY, Pay(YOU, 9), nonce=1)


@pytest.mark.parametrize(
    ("max_fee", "priority", "accepted"),
    [(2_200, 110, True), (2_199, 110, False), (2_200, 109, False), (9_999, 100, False)],
)
def test_a_replacement_bids_a_tenth_more_on_both_fees(
    chain: SimulatedChain, max_fee: int, priority: int, accepted: bool
) -> None:
    chain.send(KEY, Pay(YOU, 1), nonce=0, max_fee=2_000, priority_fee=100)
    if accepted:
        chain.send(KEY, Pay(YOU, 5), nonce=0, max_fee=max_fee, priority_fee=priority)
    else:
        with pytest.raises(ValueError, match="replacement transaction underpriced"):
            chain.send(KEY, Pay(YOU, 5), nonce=0, max_fee=max_fee, priority_fee=priority)
    chain.mine()

    assert chain.balance(YOU) == (5 if accepted else 1)


@given(st.integers(1, 10**15), st.integers(1, 10**12), st.integers(0, 10**15), st.integers(0, 10**12))
@settings(max_examples=200)
def test_our_bump_is_an_eighth_more_on_both_fees_whatever_the_quote(
    max_fee: int, priority: int, quote_max: int, quote_priority: int
) -> None:
    bumped = Fee(max_fee, priority, 1).bumped(Fee(quote_max, quote_priority, 1))

    assert 8 * bumped.max_fee >= 9 * max_fee
    assert 8 * bumped.priority_fee >= 9 * priority


def test_the_dearer_bid_is_mined_first_and_a_low_one_waits(chain: SimulatedChain) -> None:
    chain.set_base_fee(5_000)
    low = chain.send(KEY, Pay(YOU, 1), max_fee=4_000)
    chain.mine()
    waiting = chain.transaction(low)
    assert waiting is not None
    assert waiting.height is None
    while chain.base_fee > 4_000:
        chain.mine()
    chain.mine()
    assert chain.balance(YOU) == 1


def test_a_failed_transaction_costs_its_fee_and_moves_nothing(chain: SimulatedChain) -> None:
    before = chain.balance(ME)
    failed = chain.send(KEY, Pay(YOU, 1_000), gas=0)
    token = chain.send(KEY, simulated.TransferToken(chain.deploy("GOLD", decimals=6), YOU, 5))
    chain.mine()

    results = [chain.transaction(tx_id) for tx_id in (failed, token)]
    assert [result.ok for result in results if result] == [False, False]
    assert chain.balance(ME) == before - sum(result.fee for result in results if result) < before
    assert chain.balance(YOU) == chain.balance(YOU, "GOLD") == 0


def test_orphaned_transactions_return_to_the_mempool(chain: SimulatedChain) -> None:
    kept, dropped = chain.send(KEY, Pay(YOU, 1)), chain.send(KEY, Pay(YOU, 2))
    old = chain.mine()
    chain.reorg(1, drop=[dropped], reinclude=False)
    assert chain.balance(YOU) == 0
    with pytest.raises(Moved):
        chain.balance(YOU, "", old)

    chain.mine()
    assert chain.balance(YOU) == 1
    assert chain.transaction(kept) is not None
    assert chain.transaction(dropped) is None


@given(st.lists(st.sampled_from(["pay", "mine", "reorg", "drop"]), max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_coins_are_only_moved_or_burnt_as_fees(deeds: list[str], random: object) -> None:
    chain = SimulatedChain(seed="h")
    whole = chain.balance(chain.faucet_address)
    for deed in deeds:
        if deed == "pay":
            chain.faucet(ME, "", 1_000)
        elif deed == "mine":
            chain.mine()
        elif chain.height:
            chain.reorg(1 + random.randrange(min(chain.height, 3)), reinclude=deed == "reorg")  # type: ignore[attr-defined]
    fees = sum(
        tx.fee
        for height in range(chain.height + 1)
        if (block := chain.block(height)) is not None
        for tx in chain.transactions(block)
    )

    assert chain.balance(chain.faucet_address) + chain.balance(ME) + fees == whole


@given(st.binary(max_size=40))
def test_base58_goes_both_ways(data: bytes) -> None:
    assert base58.decode(base58.encode(data)) == data


def test_a_chain_is_not_closed_while_it_mines(tmp_path: Path) -> None:
    """A node that stops closes its chain while a thread of it still mines: SQLite would end the process."""
    for number in range(5):
        chain = SimulatedChain(tmp_path / f"{number}.db", seed="test")
        begun = Event()

        def mine(chain: SimulatedChain = chain, begun: Event = begun) -> None:
            with suppress(sqlite3.ProgrammingError):
                while True:
                    chain.mine(3)
                    begun.set()

        thread = Thread(target=mine)
        thread.start()
        assert begun.wait(10)
        chain.close()
        thread.join(10)
        assert not thread.is_alive()
