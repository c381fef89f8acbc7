"""What shares are worth as of any block and line: the pool's atoms by its shares, from SQL alone.   [A-12, B-4]"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from ledger import shares
from ledger.balances import (
    STATEMENT_KINDS,
    StatementLine,
    assets,
    pool_of,
    statement,
    subaccount_balances,
    trial_balance_json,
)
from ledger.blocks import Block
from ledger.chart import (
    POOL_BORROWED,
    POOL_FEES,
    POOL_LENT,
    POOL_SHARES,
    AccountKind,
    AssetId,
    account_id,
    available,
    borrowed,
    debt_share,
    lend_share,
    lent,
)
from ledger.journal import JournalKind, JournalTransaction
from tests.ledger.logs import SOL, LogBuilder, deposit, stored, transaction

ONE = 10**9
"""Shares per atom in a new pool."""
ALICE, BOB, CAROL = 1, 2, 3
LENT, DEBT = lend_share(SOL), debt_share(SOL)


def lend(who: int, atoms: int, minted: int) -> JournalTransaction:
    """Lent, or with both below zero redeemed."""
    kind = JournalKind.LEND if atoms > 0 else JournalKind.REDEEM
    return transaction(
        kind,
        [
            (available(who), SOL, atoms), (POOL_LENT, SOL, -atoms),
            (lent(who), LENT, -minted), (POOL_SHARES, LENT, minted),
        ],
    )


def borrow(who: int, atoms: int, minted: int) -> JournalTransaction:
    """Borrowed, or with both below zero repaid."""
    kind = JournalKind.BORROW if atoms > 0 else JournalKind.REPAY
    return transaction(
        kind,
        [
            (POOL_BORROWED, SOL, atoms), (available(who), SOL, -atoms),
            (borrowed(who), DEBT, minted), (POOL_SHARES, DEBT, -minted),
        ],
    )


def interest(atoms: int, fee: int) -> JournalTransaction:
    legs = [(POOL_BORROWED, SOL, atoms), (POOL_LENT, SOL, fee - atoms), (POOL_FEES, SOL, -fee)]
    return transaction(JournalKind.INTEREST, legs)


def loans() -> list[Block]:
    """Block 1: Alice lends 1,000, Carol 500, Bob borrows 600. 2: 60 of interest, 6 of it fees. 3: 30 more, Bob repays
    345, half of his debt, and Alice redeems 100; all debts are 345 then, all claims 1,481."""
    log = LogBuilder()
    log.add("genesis", transaction(JournalKind.ASSET_LISTED, [], (SOL, "SOL", 3)))
    log.add("deposits", *(deposit(who, SOL, 5_000) for who in (ALICE, BOB, CAROL)))
    blocks = [log.commit()]
    log.add("loans", lend(ALICE, 1_000, 1_000 * ONE), lend(CAROL, 500, 500 * ONE), borrow(BOB, 600, 600 * ONE))
    blocks.append(log.commit())
    log.add("hour", interest(60, 6))
    blocks.append(log.commit())
    burnt = -(-100 * 1_500 * ONE // 1_581)
    log.add("later", interest(30, 3), borrow(BOB, -345, -300 * ONE), lend(ALICE, -100, -burnt))
    blocks.append(log.commit())
    return blocks


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return stored(database_url, loans())


def test_shares_have_a_name_and_nine_decimals_more(engine: sa.Engine) -> None:
    """A-2"""
    listed = assets(engine)

    assert [(listed[one].symbol, listed[one].decimals) for one in (SOL, LENT, DEBT)] == [
        ("SOL", 3), ("SOL.lend", 12), ("SOL.debt", 12),
    ]


def test_a_claim_rounds_down_and_a_debt_up() -> None:
    """A-3: both signed as posted."""
    assert shares.worth(shares.Pool(-10, 3), -2) == -6
    assert shares.worth(shares.Pool(10, -3), 2) == 7
    assert shares.worth(shares.Pool(0, 0), 0) == 0


def test_loans_as_of_a_block_are_valued_at_that_block(engine: sa.Engine) -> None:
    """A-12"""
    alice = [subaccount_balances(engine, ALICE, height).get((AccountKind.LENT, SOL)) for height in range(4)]
    bob = [subaccount_balances(engine, BOB, height).get((AccountKind.BORROWED, SOL)) for height in range(4)]

    assert alice == [None, 1_000, 1_036, 954 - 1]
    assert bob == [None, -600, -660, -345]
    assert pool_of(engine, LENT, 2) == shares.Pool(-1_554, 1_500 * ONE)
    assert subaccount_balances(engine, CAROL)[AccountKind.LENT, SOL] == 527


def _lines(engine: sa.Engine, who: int, share: AssetId, **blocks: int) -> list[StatementLine]:
    accounts = [account_id(kind, who) for kind in STATEMENT_KINDS]
    return [line for line in statement(engine, accounts, **blocks) if line.asset == share]


def test_each_line_says_what_its_balance_was_worth_then(engine: sa.Engine) -> None:
    """A-12"""
    alice = _lines(engine, ALICE, LENT)
    bob = _lines(engine, BOB, DEBT)
    late = _lines(engine, BOB, DEBT, from_block=3)
    plain = _lines(engine, BOB, SOL)

    assert [line.worth for line in alice] == [-1_000, -953]
    assert alice[0].balance == -1_000 * ONE
    assert [line.worth for line in bob] == [600, 345]
    assert late == bob[1:]
    assert {line.worth for line in plain} == {None}


def test_the_trial_balance_names_and_values_shares(engine: sa.Engine) -> None:
    """A-1, A-12"""
    rows = {(row["account"], row["asset"]): row for row in trial_balance_json(engine)["rows"]}

    claim = rows["subaccount/3/lent", "SOL.lend"]
    assert (claim["credit"], claim["worth"]) == ("0.5", "0.527")
    assert rows["subaccount/2/borrowed", "SOL.debt"]["worth"] == "0.345"
    assert rows["money-market/shares", "SOL.lend"]["worth"] == "1.481"
    assert "worth" not in rows["money-market/lent", "SOL"]
    totals = trial_balance_json(engine)["totals"]
    assert totals["SOL.debt"]["debit"] == totals["SOL.debt"]["credit"] == "0.3"
