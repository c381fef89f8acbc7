"""Positions, unsettled equity and claims in statements, trial balances and receipts, from SQL.   [A-2, A-12, S-14]"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from ledger.balances import STATEMENT_KINDS, StatementLine, assets, statement, subaccount_balances, trial_balance_json
from ledger.blocks import Block
from ledger.chart import (
    FEE_INCOME,
    INSURANCE_FUND,
    LIQUIDITY_FUND,
    POOL_LENT,
    POOL_SHARES,
    ROUNDING,
    AccountKind,
    AssetId,
    account_id,
    available,
    claim,
    claim_lend,
    contracts,
    cost,
    lend_share,
    position,
    unsettled,
)
from ledger.journal import JournalKind, PostingBatch
from ledger.positions import position_periods
from ledger.receipts import ReceiptError, make_receipt, verify_receipt
from ledger.store import Store
from tests.ledger.logs import OLD_KEY, SOL, USDC, LogBuilder, deposit, stored, transaction

ONE = 10**9
MARKET, SPOT = 7, 8
ALICE, BOB = 1, 2
TRADERS = 3_000
"""More than one chunk of a batch."""
QUANTITY, COST, CLAIMS = contracts(MARKET), cost(MARKET), claim_lend(MARKET)


def perpetuals() -> list[Block]:
    """Block 1: Alice buys 5 SOL of Bob below the mark. 2: a tick moves 30 USDC between all traders, in columns. 3: a
    claim of 200 shares for Alice, each worth two atoms in the pool, and 7 that she waits for and Bob owes."""
    log = LogBuilder()
    log.add(
        "genesis",
        transaction(JournalKind.ASSET_LISTED, [], (SOL, "SOL", 9)),
        transaction(JournalKind.ASSET_LISTED, [], (USDC, "USDC", 6)),
        transaction(JournalKind.MARKET_CONFIGURED, [], (SPOT, "SOL_USDC", SOL, USDC, 10**7, 100, 1)),
        transaction(JournalKind.MARKET_CONFIGURED, [], (MARKET, "SOL_USDC_PERP", SOL, USDC, 10**7, 100, 1)),
        *(deposit(who, USDC, 10**9) for who in (ALICE, BOB)),
    )
    blocks = [log.commit()]
    log.add(
        "trade",
        transaction(
            JournalKind.PERPETUAL_TRADE,
            [
                (position(ALICE), QUANTITY, -5 * 10**9), (position(BOB), QUANTITY, 5 * 10**9),
                (position(ALICE), COST, -2_500_000), (position(BOB), COST, 2_500_000),
                (available(ALICE), USDC, 350), (available(BOB), USDC, 140), (FEE_INCOME, USDC, -490),
            ],
            (MARKET, 1, 700_000, 500, 11, 12, ALICE, BOB, 1, USDC, 350, USDC, 140, 1_000_000),
        ),
    )  # fmt: skip
    blocks.append(log.commit())
    paid = [-30_000_000, 30_000_000 - 4 * (TRADERS - 2), *[4] * (TRADERS - 2)]
    settled = PostingBatch.of(AccountKind.AVAILABLE, USDC, range(1, TRADERS + 1), paid)
    costs = PostingBatch.of(AccountKind.POSITION, COST, [ALICE, BOB], [2_500_000, -2_500_000])
    # A lot is a hundredth of a SOL: five SOL gain 27.5 USDC when a lot gains 0.055.
    marks = (10, ((MARKET, 1_000_000, 1_055_000),), ())
    log.add("tick", transaction(JournalKind.SETTLEMENT, [], marks, (costs, settled)))
    blocks.append(log.commit())
    log.add(
        "claims",
        transaction(JournalKind.SETTLEMENT, [
            (POOL_LENT, USDC, -400), (available(BOB), USDC, 400),
            (LIQUIDITY_FUND, lend_share(USDC), -200 * ONE), (POOL_SHARES, lend_share(USDC), 200 * ONE),
            (claim(ALICE), CLAIMS, -200 * ONE), (LIQUIDITY_FUND, CLAIMS, 200 * ONE),
            (unsettled(ALICE), USDC, -7), (unsettled(BOB), USDC, 7),
            (position(BOB), COST, 1), (ROUNDING, COST, -1), (INSURANCE_FUND, USDC, -1), (available(BOB), USDC, 1),
        ], (20, (), ())),
    )  # fmt: skip
    liquidated = (ALICE, QUANTITY, 100_000, 10_000_000, 9), (ALICE, SOL, 100_000, 10_000_000, 1_000)
    for memo in liquidated:
        legs = [(available(ALICE), USDC, memo[4]), (INSURANCE_FUND, USDC, -memo[4])]
        log.add("step", transaction(JournalKind.LIQUIDATION_FEE, legs, memo))
    legs = [(position(ALICE), COST, 3), (ROUNDING, COST, -3)]
    log.add("hour", transaction(JournalKind.FUNDING, legs, (0, ())))
    blocks.append(log.commit())
    return blocks


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return stored(database_url, perpetuals())


def lines_of(engine: sa.Engine, who: int, *wanted: AssetId) -> list[StatementLine]:
    accounts = [account_id(kind, who) for kind in STATEMENT_KINDS]
    return [line for line in statement(engine, accounts) if line.asset in wanted]


def test_a_perpetual_has_names_and_decimals_of_its_own_and_a_spot_market_none(engine: sa.Engine) -> None:
    """A-2"""
    listed = assets(engine)

    assert [(listed[one].symbol, listed[one].decimals) for one in (QUANTITY, COST, CLAIMS)] == [
        ("SOL_USDC_PERP", 9), ("SOL_USDC_PERP.cost", 6), ("SOL_USDC_PERP.claim", 15),
    ]
    assert (listed[CLAIMS].share, listed[QUANTITY].share) == (lend_share(USDC), 0)
    assert contracts(SPOT) not in listed


def test_a_statement_shows_quantity_cost_and_the_rows_of_a_tick(engine: sa.Engine) -> None:
    """A-12, S-14: columns are expanded for the one account."""
    held = [(line.kind, line.atoms, line.balance) for line in lines_of(engine, ALICE, QUANTITY, COST)]
    usdc = [line for line in lines_of(engine, ALICE, USDC) if line.account == available(ALICE)]
    cash = [(line.kind, line.atoms, line.balance) for line in usdc]

    assert held == [
        (JournalKind.PERPETUAL_TRADE, -5 * 10**9, -5 * 10**9),
        (JournalKind.PERPETUAL_TRADE, -2_500_000, -2_500_000),
        (JournalKind.SETTLEMENT, 2_500_000, 0),
        (JournalKind.FUNDING, 3, 3),
    ]
    assert cash == [
        (JournalKind.DEPOSIT, -(10**9), -(10**9)),
        (JournalKind.PERPETUAL_TRADE, 350, -999_999_650),
        (JournalKind.SETTLEMENT, -30_000_000, -1_029_999_650),
        (JournalKind.LIQUIDATION_FEE, 9, -1_029_999_641),
        (JournalKind.LIQUIDATION_FEE, 1_000, -1_029_998_641),
    ]


def test_a_claim_is_worth_what_its_shares_in_the_pool_are(engine: sa.Engine) -> None:
    """V-2, A-12"""
    (line,) = lines_of(engine, ALICE, CLAIMS)
    rows = {(row["account"], row["asset"]): row for row in trial_balance_json(engine)["rows"]}

    assert (line.balance, line.worth, line.moved) == (-200 * ONE, -400, None)
    assert rows["subaccount/1/claim", "SOL_USDC_PERP.claim"]["worth"] == "0.0004"
    assert rows["liquidity-fund", "USDC.lend"]["worth"] == "0.0004"
    assert rows["subaccount/1/position", "SOL_USDC_PERP"]["credit"] == "5"
    assert rows["subaccount/2/position", "SOL_USDC_PERP.cost"]["debit"] == "0.000001"


def test_holdings_have_positions_unsettled_equity_and_claims(engine: sa.Engine) -> None:
    """A-12: at each block; positive is long, or owed to the user."""
    after_trade, now = (subaccount_balances(engine, ALICE, height) for height in (1, 3))

    assert after_trade[AccountKind.POSITION, QUANTITY] == 5 * 10**9
    assert after_trade[AccountKind.POSITION, COST] == 2_500_000
    assert now[AccountKind.POSITION, COST] == -3 and now[AccountKind.CLAIM, USDC] == 400
    assert now[AccountKind.UNSETTLED, USDC] == 7
    assert subaccount_balances(engine, BOB)[AccountKind.UNSETTLED, USDC] == -7


def test_a_period_says_what_each_market_gave_and_took(engine: sa.Engine) -> None:
    """S-10, C-5: what a tick settled follows from its marks and from what was held."""
    (whole,) = position_periods(engine, ALICE)
    (late,) = position_periods(engine, ALICE, 2, 2)
    (before,) = position_periods(engine, ALICE, 0, 1)

    assert (whole.opening, whole.bought, whole.sold, whole.closing) == (0, 5 * 10**9, 0, 5 * 10**9)
    assert (whole.traded, whole.marked, whole.settled) == (2_500_000, 27_500_000, 30_000_000)
    assert (whole.funding, whole.cost, whole.mark) == (-3, -3, 1_055_000)
    assert (late.opening, late.traded, late.settled, late.cost) == (5 * 10**9, 0, 30_000_000, 0)
    assert (before.settled, before.cost, before.mark) == (0, 2_500_000, 0)
    for each in (whole, before):
        assert each.traded + each.funding + each.shared + each.marked == each.settled + each.cost
    assert position_periods(engine, TRADERS) == []


def test_a_period_has_the_fees_of_both_sides_of_fills_and_of_liquidation_steps_of_the_market(engine: sa.Engine) -> None:
    """F-1, L-3: so that settled − fees is what the position brought; a debt's step is no market's."""
    (alice,), (before,), (bob,) = (
        position_periods(engine, ALICE), position_periods(engine, ALICE, 0, 1), position_periods(engine, BOB)
    )  # fmt: skip

    assert (alice.fees, before.fees, bob.fees) == (350 + 9, 350, 140)


@pytest.mark.parametrize("who", [ALICE, BOB, 1_500, TRADERS])
def test_a_receipt_proves_ones_row_of_a_tick(engine: sa.Engine, who: int) -> None:
    """A-4, S-14: it shows a chunk of the batch, not all of it."""
    store = Store(engine)
    (seq,) = [entry.seq for entry in store.journal() if entry.batches]

    receipt = make_receipt(store, seq, available(who))
    proven = verify_receipt(receipt, OLD_KEY.public_key)

    assert proven.row is not None and proven.row[:2] == (available(who), USDC)
    assert proven.row.atoms == {ALICE: -30_000_000, BOB: 30_000_000 - 4 * (TRADERS - 2)}.get(who, 4)
    assert len(receipt["row"]["path"]) == (1 if who == TRADERS else 2)


def test_a_receipt_proves_ones_cost_of_a_tick_and_nobody_elses(engine: sa.Engine) -> None:
    """A-4"""
    store = Store(engine)
    (seq,) = [entry.seq for entry in store.journal() if entry.batches]

    proven = verify_receipt(make_receipt(store, seq, position(BOB)), OLD_KEY.public_key)

    both = verify_receipt(make_receipt(store, seq, position(BOB), available(BOB)), OLD_KEY.public_key)

    assert proven.row == (position(BOB), COST, -2_500_000) and proven.further == ()
    assert both.row == proven.row and [row.account for row in both.further] == [available(BOB)]
    with pytest.raises(ReceiptError, match="no batch row"):
        make_receipt(store, seq, position(3))
