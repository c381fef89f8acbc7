"""One balance, many chains: what a chain cannot pay is refused with the chains that can.   [D-1, D-5, D-8]"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from engine import liquidity, snapshot
from engine.commands import (
    ApproveWithdrawal,
    Command,
    ConfigureToken,
    CreditDeposit,
    FinalizeDeposit,
    FundCustody,
    OrphanDeposit,
    RecordSweep,
    RejectWithdrawal,
    ReleaseWithdrawal,
    RequestWithdrawal,
    ReverseDeposit,
    SettleWithdrawal,
)
from engine.rejections import Rejection, RejectReason
from engine.state import Liquidity
from tests.engine.desk import Desk, Trader

SOLANA, ETHEREUM = 1, 2
ETHER = 10**9
"""The ledger keeps ETH with 9 decimals."""
ADDRESS = "0x00000000000000000000000000000000000000aa"


@pytest.fixture
def desk() -> Desk:
    """ETH is on both chains of the devnet."""
    return Desk()


@pytest.fixture
def anna(desk: Desk) -> Trader:
    return desk.trader("anna", usdc=0, sol=0)


def eth(desk: Desk) -> int:
    return desk.exchange.asset("ETH")


def deposited(trader: Trader, chain_id: int, atoms: int, *, final: bool = True) -> str:
    """ETH arrives at the trader's own address on a chain."""
    desk, number = trader.desk, trader.subaccount
    tx_id = f"tx{desk.state.next_deposit_id}"
    desk.exchange.do(CreditDeposit(chain_id, tx_id, 0, number, number, eth(desk), atoms, 1, "hash", final))
    return tx_id


def withdraws(trader: Trader, chain_id: int, atoms: int) -> int:
    """A withdrawal that is accepted; its id."""
    reply = trader.does(RequestWithdrawal(trader.subaccount, chain_id, eth(trader.desk), atoms, ADDRESS)).reply
    number: int = reply.withdrawal_id
    return number


def refusal(trader: Trader, chain_id: int, atoms: int) -> Rejection:
    command = RequestWithdrawal(trader.subaccount, chain_id, eth(trader.desk), atoms, ADDRESS)
    rejection = trader.tries(command).rejection
    assert rejection is not None, "the withdrawal was accepted"
    return rejection


def configure(desk: Desk, chain_id: int, **fields: Any) -> None:
    token = desk.state.tokens[chain_id, eth(desk)]
    desk.exchange.do(ConfigureToken(msgspec.structs.replace(token, **fields)))


def test_what_came_in_on_one_chain_goes_out_on_another_that_has_coins(desk: Desk, anna: Trader) -> None:
    """Any supported chain in, any other out: an asset is one balance.   [D-1]"""
    deposited(anna, SOLANA, 5 * ETHER)
    desk.exchange.do(FundCustody(ETHEREUM, "seed", 0, eth(desk), 3 * ETHER))

    withdraws(anna, ETHEREUM, 3 * ETHER)

    assert anna.has("ETH") == 2 * ETHER


def test_a_chain_without_coins_is_refused_with_the_chains_that_have_them(desk: Desk, anna: Trader) -> None:
    """Refused when it is asked for, with both numbers; nothing is held.   [D-1]"""
    deposited(anna, SOLANA, 5 * ETHER)
    desk.exchange.do(FundCustody(ETHEREUM, "seed", 0, eth(desk), 1 * ETHER))

    rejection = refusal(anna, ETHEREUM, 2 * ETHER)

    assert rejection.reason == RejectReason.CHAIN_LIQUIDITY
    assert rejection.facts == {
        "asset_id": eth(desk),
        "blockchain": "Ethereum",
        "needed": 2 * ETHER,
        "available": 1 * ETHER,
        "others": "Solana",
    }
    assert anna.has("ETH") == 5 * ETHER and not desk.state.open_withdrawals
    withdraws(anna, SOLANA, 2 * ETHER)


@pytest.mark.parametrize(
    "changes", [{"withdraw_enabled": False}, {"minimum_withdrawal_atoms": 3 * ETHER},
                {"maximum_withdrawal_atoms": ETHER}, {"withdrawal_fee_atoms": 0}]
)  # fmt: skip
def test_a_chain_that_would_refuse_as_well_is_not_offered(desk: Desk, anna: Trader, changes: dict[str, Any]) -> None:
    """Its own minimum, maximum and switch count.   [D-1]"""
    deposited(anna, SOLANA, 5 * ETHER)
    configure(desk, SOLANA, **changes)

    others = refusal(anna, ETHEREUM, 2 * ETHER).facts["others"]

    assert others == ("Solana" if "withdrawal_fee_atoms" in changes else "none")


def test_withdrawals_under_way_are_nobody_elses_until_they_are_over(desk: Desk, anna: Trader) -> None:
    """Two requests cannot count on the same coins; a rejected or failed one gives them back.   [D-8]"""
    bert = desk.trader("bert", usdc=0, sol=0)
    deposited(anna, ETHEREUM, 4 * ETHER)
    deposited(bert, SOLANA, 4 * ETHER)
    first = withdraws(anna, ETHEREUM, 3 * ETHER)
    assert refusal(bert, ETHEREUM, 2 * ETHER).facts["available"] == 1 * ETHER

    desk.exchange.do(RejectWithdrawal(first, "not today"))
    second = withdraws(bert, ETHEREUM, 4 * ETHER)
    desk.exchange.do(ApproveWithdrawal(second))
    desk.exchange.do(ReleaseWithdrawal(second, "0x1", "reverted", eth(desk), 0))
    third = withdraws(anna, ETHEREUM, 4 * ETHER)
    desk.exchange.do(ApproveWithdrawal(third))
    desk.exchange.do(RecordSweep(ETHEREUM, "0x2", anna.subaccount, 0, eth(desk), 4 * ETHER, 0, 0, 0))
    desk.exchange.do(SettleWithdrawal(third, "0x3", eth(desk), 0))

    line = liquidity.liquidity(desk.state, ETHEREUM, eth(desk))
    assert (line.hot, line.unswept, line.paying, line.payable) == (0, 0, 0, 0)
    assert refusal(bert, ETHEREUM, 1 * ETHER).facts["others"] == "Solana"


def test_deposits_count_from_finality_on(desk: Desk, anna: Trader) -> None:
    """What a reorg can take back pays nobody.   [D-5]"""
    bert = desk.trader("bert", usdc=0, sol=0)
    deposited(bert, SOLANA, 2 * ETHER)
    tx_id = deposited(anna, ETHEREUM, 2 * ETHER, final=False)
    assert refusal(bert, ETHEREUM, ETHER).facts["available"] == 0

    desk.exchange.do(FinalizeDeposit(ETHEREUM, tx_id, 0))
    assert liquidity.liquidity(desk.state, ETHEREUM, eth(desk)).payable == 2 * ETHER
    desk.exchange.do(OrphanDeposit(ETHEREUM, tx_id, 0))
    assert refusal(bert, ETHEREUM, ETHER).facts["available"] == 0
    desk.exchange.do(ReverseDeposit(ETHEREUM, tx_id, 0))
    line = liquidity.liquidity(desk.state, ETHEREUM, eth(desk))
    assert (line.unswept, line.provisional, line.payable) == (0, 0, 0)


def test_crumbs_that_nobody_sweeps_do_not_count(desk: Desk, anna: Trader) -> None:
    """The sweeper takes from the minimum withdrawal up; three crumbs at three addresses stay there.   [D-10]"""
    configure(desk, ETHEREUM, minimum_withdrawal_atoms=ETHER)
    others = [anna, desk.trader("bert", usdc=0, sol=0), desk.trader("carl", usdc=0, sol=0)]
    for trader in others:
        deposited(trader, ETHEREUM, ETHER * 9 // 10)
    deposited(anna, SOLANA, 5 * ETHER)
    assert refusal(anna, ETHEREUM, ETHER).facts["available"] == 0

    deposited(anna, ETHEREUM, ETHER // 5)
    assert liquidity.liquidity(desk.state, ETHEREUM, eth(desk)).payable == ETHER * 11 // 10
    configure(desk, ETHEREUM, minimum_withdrawal_atoms=ETHER // 2)
    assert liquidity.liquidity(desk.state, ETHEREUM, eth(desk)).payable == ETHER * 29 // 10


def test_who_lacks_the_balance_hears_of_that_first(desk: Desk, anna: Trader) -> None:
    assert refusal(anna, ETHEREUM, ETHER).reason == RejectReason.INSUFFICIENT_FUNDS


@pytest.mark.parametrize("seed", range(6))
def test_the_running_counts_are_what_a_recount_finds(desk: Desk, seed: int) -> None:
    """After any life, so that a state loaded from a snapshot goes on alike.   [A-10]"""
    random = Random(seed)
    traders = [desk.trader(f"trader {number}", usdc=0, sol=0) for number in range(4)]
    asset_id, state = eth(desk), desk.state
    for step in range(150):
        trader, chain_id = random.choice(traders), random.choice((SOLANA, ETHEREUM))
        atoms = random.randrange(1, 5 * 10 ** random.randrange(6, 10))
        kind = random.randrange(8)
        if kind <= 2:
            deposited(trader, chain_id, atoms, final=kind > 0)
        elif kind <= 4:
            trader.tries(RequestWithdrawal(trader.subaccount, chain_id, asset_id, atoms, ADDRESS))
        else:
            for command in _follow_ups(desk, random, step):
                desk.attempt(command)
    last = desk.trader("last", usdc=0, sol=0)
    deposited(last, ETHEREUM, 10**4 * ETHER)
    withdraws(last, ETHEREUM, ETHER)

    known = {key: line for key, line in state.liquidity.items() if line != Liquidity()}
    loaded = snapshot.load(snapshot.dump(state))
    assert {key: line for key, line in loaded.liquidity.items() if line != Liquidity()} == known
    assert any(line.paying for line in known.values())


def _follow_ups(desk: Desk, random: Random, step: int) -> list[Command]:
    """Something that may happen next to a deposit, a withdrawal or a wallet."""
    state, asset_id = desk.state, eth(desk)
    commands: list[Command] = []
    if state.deposits:
        chain_id, tx_id, index = random.choice(list(state.deposits))
        make = random.choice((FinalizeDeposit, OrphanDeposit, ReverseDeposit))
        commands.append(make(chain_id, tx_id, index))
    if state.open_withdrawals:
        number = random.choice(list(state.open_withdrawals))
        commands.append(ApproveWithdrawal(number))
        commands.append(random.choice((
            RejectWithdrawal(number, "no"), ReleaseWithdrawal(number, f"r{step}", "reverted", asset_id, 0),
        )))  # fmt: skip
    return commands
