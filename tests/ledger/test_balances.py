"""Balances as of any block agree with a ledger kept in a dict, on both databases, beyond 64 bits.   [A-12, A-13]"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import schema
from ledger.balances import (
    NoSuchBlock,
    account_balances,
    assets,
    balance,
    statement,
    subaccount_balances,
    totals_by_kind,
    trial_balance,
    trial_balance_json,
)
from ledger.blocks import Block
from ledger.chart import FEE_INCOME, AccountKind, account_id, available, custody_account
from ledger.database import open_engine
from ledger.invariants import ConservationError, RunningTotals
from ledger.journal import JournalKind, PostingBatch
from ledger.store import Store
from ledger.verification import verify
from tests.ledger.logs import (
    HOT_SOL,
    HUGE,
    HUGE_AMOUNT,
    SOL,
    USDC,
    LogBuilder,
    example_blocks,
    opened,
    stored,
    transaction,
)

Balances = dict[tuple[int, int], int]


class DictLedger:
    """The oracle: every balance after every block, by adding up."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.after: list[Balances] = []
        self.lines: list[tuple[int, int, int, int, int]] = []
        running: Balances = defaultdict(int)
        for block in blocks:
            for entry in block.journal:
                rows = [leg for batch in entry.batches for leg in batch.postings() if leg[2]]
                for account, asset, atoms in [*entry.postings, *rows]:
                    running[account, asset] += atoms
                    self.lines.append((block.header.height, account, asset, atoms, running[account, asset]))
            self.after.append(dict(running))


ACCOUNTS = [HOT_SOL, FEE_INCOME, *(available(n) for n in range(1, 5)), account_id(AccountKind.WITHDRAWING, 2)]
amounts = st.one_of(st.integers(-100, 100), st.integers(-(10**19), 10**19), st.integers(-(4 * 10**36), 4 * 10**36))
moves = st.tuples(
    st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.sampled_from([SOL, USDC, HUGE]), amounts, st.booleans()
)
histories = st.lists(st.lists(moves, max_size=6), min_size=1, max_size=5)


def built(history: list[list[tuple[int, int, int, int, bool]]]) -> list[Block]:
    log = LogBuilder()
    blocks = []
    for moves_of_block in history:
        log.add("clock")
        for source, target, asset, atoms, as_batch in moves_of_block:
            if as_batch and abs(atoms) < 10**18:
                batch = PostingBatch.of(AccountKind.AVAILABLE, asset, [1, 2, 3], [atoms, 0, 2 * atoms])
                entry = transaction(JournalKind.TRANSFER, [(target, asset, -3 * atoms)], (), (batch,))
            else:
                entry = transaction(JournalKind.TRANSFER, [(source, asset, -atoms), (target, asset, atoms)])
            log.add("transfer", entry)
        blocks.append(log.commit())
    return blocks


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories)
def test_as_of_any_block_sql_agrees_with_the_oracle(emptied: sa.Engine, history: list[list[tuple]]) -> None:  # type: ignore[type-arg]
    clear(emptied)
    blocks = built(history)
    store = Store(emptied)
    for block in blocks:
        store.append(block)
    store.close()
    oracle = DictLedger(blocks)
    running = RunningTotals()

    for block in blocks:
        height = block.header.height
        expected = {key: atoms for key, atoms in oracle.after[height].items() if atoms}
        trial = trial_balance(emptied, height)
        running.add(block.journal)

        assert {(row.account, row.asset): row.debit - row.credit for row in trial.rows} == expected
        assert all(min(row.debit, row.credit) == 0 for row in trial.rows)
        assert trial.is_balanced()
        assert {key: atoms for key, atoms in running.totals.items() if atoms} == totals_by_kind(emptied, height)
    for account in ACCOUNTS:
        for asset in (SOL, USDC, HUGE):
            assert balance(emptied, account, asset) == oracle.after[-1].get((account, asset), 0)
        first = len(blocks) // 2
        lines = [
            (line.block_height, line.account, line.asset, line.atoms, line.balance)
            for line in statement(emptied, [account], first)
        ]
        assert lines == [line for line in oracle.lines if line[1] == account and line[0] >= first]


@pytest.fixture
def emptied(database_url: str) -> sa.Engine:
    return opened(database_url)


def clear(engine: sa.Engine) -> None:
    """Empty the log between examples; only a test may, and only by switching the guards off."""
    from alembic import command
    from alembic.config import Config

    from ledger.resources import migrations_dir

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        command.upgrade(config, "0001")


def test_a_statement_opens_with_what_was_there_before(database_url: str) -> None:
    engine = stored(database_url, example_blocks())

    lines = list(statement(engine, [available(3), available(1)], 5))

    assert [(line.asset, line.atoms, line.balance) for line in lines if line.account == available(3)] == [
        (USDC, 9_997, -8_999_990_003),
        (SOL, -2_000_000_000, -2_000_000_000),
        (USDC, 301_030_102, -8_698_959_901),
    ]
    assert {line.block_height for line in lines} == {5}
    assert lines[0].kind == JournalKind.TRANSFER


def test_holdings_of_a_subaccount_are_what_it_is_owed(database_url: str) -> None:
    engine = stored(database_url, example_blocks())

    assert subaccount_balances(engine, 2, 1) == {
        (AccountKind.AVAILABLE, SOL): 70_000_000_000,
        (AccountKind.AVAILABLE, HUGE): HUGE_AMOUNT,
    }
    assert account_balances(engine, HOT_SOL, 1)[HUGE] == HUGE_AMOUNT + 5 * 10**18
    assert account_balances(engine, HOT_SOL, 0) == {}


def test_the_trial_balance_prints_names_and_decimals(database_url: str) -> None:
    engine = stored(database_url, example_blocks())

    document = trial_balance_json(engine, 2)

    assert document["asOf"] == 2
    assert document["rows"][0] == {
        "account": "custody/1/hot",
        "type": "asset",
        "asset": "SOL",
        "debit": "70",
        "credit": "0",
    }
    credits = {row["account"]: row["credit"] for row in document["rows"] if row["asset"] == "USDC"}
    assert credits["income/trading-fees"] == "0.15"
    assert document["totals"] == {
        "SOL": {"debit": "70", "credit": "70"},
        "USDC": {"debit": "14000", "credit": "14000"},
        "HUGE": {"debit": "3000000000000000005.000000000000000007", "credit": "3000000000000000005.000000000000000007"},
    }
    assert assets(engine)[USDC].symbol == "USDC"


def test_a_block_that_is_not_there_is_said_so(database_url: str) -> None:
    with pytest.raises(NoSuchBlock, match="the log is empty"):
        trial_balance(opened(database_url))
    engine = stored(database_url, example_blocks())

    with pytest.raises(NoSuchBlock, match="no block 99"):
        balance(engine, HOT_SOL, SOL, 99)


def test_conservation_fails_loudly() -> None:
    blocks = example_blocks()
    totals = RunningTotals()
    for block in blocks:
        totals.add(block.journal)

    totals.totals[AccountKind.CUSTODY, SOL] += 1
    with pytest.raises(ConservationError, match=r"asset 1: postings sum to 1 atoms, expected 0"):
        totals.require()


def test_no_wallet_holds_less_than_nothing() -> None:
    log = LogBuilder()
    log.add("transfer", transaction(JournalKind.TRANSFER, [(available(1), SOL, 5), (custody_account(1, 0), SOL, -5)]))
    totals = RunningTotals()
    totals.add(log.commit().journal)

    assert totals.violations() == [
        "asset 1: subaccount/*/available is at 5 atoms, on the wrong side of zero",
        "asset 1: custody/* is at -5 atoms, on the wrong side of zero",
    ]


def test_readers_take_no_write_lock(sqlite_url: str) -> None:
    """Neither through an engine of their own nor through the writer's."""
    engine = stored(sqlite_url, example_blocks())

    with engine.begin() as writing:
        writing.execute(sa.update(schema.tip).values(epoch=schema.tip.c.epoch))

        for reader in (engine, open_engine(sqlite_url, read_only=True)):
            assert trial_balance(reader).is_balanced()
            assert len(list(Store(reader).journal())) == 13
            assert verify(reader).is_clean
