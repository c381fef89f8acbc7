"""Balances, statements and trial balances as of any block, read from the postings.   [A-1, A-2, A-12]

Amounts are signed as posted: debits positive, so what a liability account owes its owner is negative. Sums are exact
beyond 64 bits on both databases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ledger import schema, shares
from ledger.amounts import ATOMS_SPLIT, format_decimal, join_atoms
from ledger.chart import (
    OWNER_BITS,
    OWNER_MASK,
    POOL_SHARES,
    AccountId,
    AccountKind,
    AccountType,
    AssetId,
    account_id,
    account_name,
    account_type,
    asset_decimals,
    asset_symbol,
    claim_debt,
    claim_lend,
    contracts,
    cost,
    debt_share,
    external_custody,
    external_owed,
    is_native_of_amm,
    is_pool_share,
    kind_of,
    lend_share,
    native_custody,
    native_owed,
    owner_of,
    pool_units,
    underlying,
)
from ledger.database import reading
from ledger.journal import JournalKind, decode_memo
from ledger.store import batch_of

STATEMENT_KINDS = (
    AccountKind.AVAILABLE,
    AccountKind.LENT,
    AccountKind.BORROWED,
    AccountKind.POSITION,
    AccountKind.UNSETTLED,
    AccountKind.CLAIM,
    AccountKind.AMM_UNITS,
    AccountKind.AMM_CUSTODY,
    AccountKind.AMM_DEBT,
    AccountKind.WITHDRAWING,
    AccountKind.RECEIVABLE,
)
"""A subaccount's own accounts, in the order in which a statement shows them; a receipt is for who has one of them."""

PERPETUAL_SUFFIX = "_PERP"
"""How the symbol of a perpetual ends, and of no other market: a record of a market says no type."""


class Asset(NamedTuple):
    """An asset as the journal listed it, the shares in its money market (`SOL.lend`, `SOL.debt`), what a perpetual's
    positions stand in (its contracts `SOL_USDC_PERP`, their cost, claims on the liquidity fund), or what a liquidity
    pool's do (`SOL.pool-units`, custody, what is owed).   [A-2, X-3, X-5]
    """

    id: AssetId
    symbol: str
    decimals: int
    share: AssetId = 0
    """The share in a money market that one of these is: of `SOL.lend` itself, of a claim `USDC.lend` or `USDC.debt`;
    0: none.   [B-4, V-2]
    """


class TrialRow(NamedTuple):
    """One account's balance in one asset; exactly one of debit and credit is not zero."""

    account: AccountId
    asset: AssetId
    debit: int
    credit: int


class TrialBalance(NamedTuple):
    """Every account that is not at zero, and per asset the sum of each side: equal, or the ledger is broken."""

    as_of: int
    rows: list[TrialRow]
    totals: dict[AssetId, tuple[int, int]]

    def is_balanced(self) -> bool:
        return all(debit == credit for debit, credit in self.totals.values())


class StatementLine(NamedTuple):
    """One posting on an account and its balance after it."""

    journal_seq: int
    command_seq: int
    block_height: int
    at_us: int
    kind: int
    memo: bytes
    account: AccountId
    asset: AssetId
    atoms: int
    balance: int
    worth: int | None = None
    """Of a balance in shares: atoms of their asset that it is worth after the transaction, as signed.   [B-4]"""
    moved: int | None = None
    """Of shares: the atoms of their asset that the movement itself was, as signed.   [B-4]"""


class NoSuchBlock(LookupError):
    """An as-of query for a block that is not in the log."""


def assets(engine: sa.Engine, as_of: int | None = None) -> dict[AssetId, Asset]:
    """The assets listed up to block `as_of` (None: so far), the shares in them and what perpetuals and liquidity pools
    are made of, by id.

    A later record of an id (a rename) wins.   [A-2, A-12]
    """
    table = schema.journal
    kinds = (JournalKind.ASSET_LISTED, JournalKind.MARKET_CONFIGURED, JournalKind.POOL_CONFIGURED)
    query = sa.select(table.c.kind, table.c.memo).where(table.c.kind.in_(kinds)).order_by(table.c.seq)
    if as_of is not None:
        query = query.where(table.c.block_height <= as_of)
    with reading(engine) as connection:
        records = [(kind, decode_memo(memo)) for kind, memo in connection.execute(query)]
    found: dict[AssetId, Asset] = {}
    for kind, memo in records:
        if kind == JournalKind.ASSET_LISTED:
            number, symbol, decimals = memo[:3]
            for one in (number, lend_share(number), debt_share(number)):
                share = 0 if one == number else one
                found[one] = Asset(one, asset_symbol(one, symbol), asset_decimals(one, decimals), share)
    for kind, memo in records:
        if kind == JournalKind.MARKET_CONFIGURED and str(memo[1]).endswith(PERPETUAL_SUFFIX):
            market, symbol, base, quote = memo[:4]
            for one, counted, share in (
                (contracts(market), base, 0),
                (cost(market), quote, 0),
                (claim_lend(market), quote, lend_share(quote)),
                (claim_debt(market), quote, debt_share(quote)),
            ):
                if counted in found:
                    decimals = asset_decimals(one, found[counted].decimals)
                    found[one] = Asset(one, asset_symbol(one, symbol), decimals, share)
        elif kind == JournalKind.POOL_CONFIGURED:
            pool, native = memo[:2]
            for one in of_liquidity_pool(pool):
                counted = native if is_native_of_amm(one) else pool
                if pool in found and counted in found:
                    found[one] = Asset(one, asset_symbol(one, found[pool].symbol), found[counted].decimals)
    return found


def of_liquidity_pool(pool_id: int) -> tuple[AssetId, ...]:
    """What a liquidity pool's providers and positions have and owe, as assets of the ledger.   [X-3, X-5]"""
    return (
        pool_units(pool_id),
        native_custody(pool_id),
        external_custody(pool_id),
        native_owed(pool_id),
        external_owed(pool_id),
    )


def balance(engine: sa.Engine, account: AccountId, asset: AssetId, as_of: int | None = None) -> int:
    """The signed balance of one account in one asset after block `as_of` (None: now).   [A-12]"""
    table = schema.posting
    with reading(engine) as connection:
        last = last_journal(connection, as_of)
        query = sa.select(*_exact_sum(table.c.atoms_high, table.c.atoms)).where(
            table.c.account == account, table.c.asset == asset, table.c.journal_seq <= last
        )
        total = _joined(connection.execute(query).one())
        for seq_batch in _batches_of(connection, account, asset, 0, last):
            total += seq_batch[1]
    return total


def subaccount_balances(
    engine: sa.Engine, subaccount_id: int, as_of: int | None = None
) -> dict[tuple[AccountKind, AssetId], int]:
    """What a subaccount holds per kind of account and asset, without zeros. Positive: it is owed, or long.   [A-12]

    All in atoms: what is lent and what is borrowed (negative) as its shares are worth, under the asset itself; claims
    on the liquidity fund likewise, those of all markets together.
    """
    holdings: dict[tuple[AccountKind, AssetId], int] = {}
    listed = assets(engine, as_of)
    for kind in STATEMENT_KINDS:
        for asset, atoms in account_balances(engine, account_id(kind, subaccount_id), as_of).items():
            share = listed[asset].share if asset in listed else 0
            if share:
                atoms, asset = shares.worth(pool_of(engine, share, as_of), atoms), underlying(share)
            holdings[kind, asset] = holdings.get((kind, asset), 0) - atoms
    return {key: atoms for key, atoms in holdings.items() if atoms}


def pool_of(engine: sa.Engine, share: AssetId, as_of: int | None = None) -> shares.Pool:
    """What all shares of this kind divide, after block `as_of` (None: now).   [A-12, B-4]"""
    atoms = balance(engine, shares.pool_account(share), underlying(share), as_of)
    return shares.Pool(atoms, balance(engine, POOL_SHARES, share, as_of))


def account_balances(engine: sa.Engine, account: AccountId, as_of: int | None = None) -> dict[AssetId, int]:
    """The signed balances of one account per asset after block `as_of`, zeros left out."""
    table = schema.posting
    with reading(engine) as connection:
        last = last_journal(connection, as_of)
        query = sa.select(table.c.asset, *_exact_sum(table.c.atoms_high, table.c.atoms))
        query = query.where(table.c.account == account, table.c.journal_seq <= last).group_by(table.c.asset)
        totals = {row[0]: _joined(row[1:]) for row in connection.execute(query)}
        for _seq, atoms, asset in _batches_of(connection, account, None, 0, last):
            totals[asset] = totals.get(asset, 0) + atoms
    return {asset: atoms for asset, atoms in totals.items() if atoms}


def balances_of_kinds(engine: sa.Engine, kinds: Sequence[AccountKind]) -> dict[tuple[AccountId, AssetId], int]:
    """The signed balance now of every account of these kinds, per asset, zeros left out."""
    table, batch = schema.posting, schema.posting_batch
    ranges = [table.c.account.between(account_id(kind), account_id(kind, OWNER_MASK)) for kind in kinds]
    query = sa.select(table.c.account, table.c.asset, *_exact_sum(table.c.atoms_high, table.c.atoms))
    with reading(engine) as connection:
        rows = connection.execute(query.where(sa.or_(*ranges)).group_by(table.c.account, table.c.asset))
        sums = {(row[0], row[1]): _joined(row[2:]) for row in rows}
        for row in connection.execute(sa.select(batch).where(batch.c.account_kind.in_([int(kind) for kind in kinds]))):
            for account, asset, atoms in batch_of(row).postings():
                sums[account, asset] = sums.get((account, asset), 0) + atoms
    return {key: atoms for key, atoms in sorted(sums.items()) if atoms}


def trial_balance(engine: sa.Engine, as_of: int | None = None) -> TrialBalance:
    """Every account's balance after block `as_of` and the totals per asset, batches included.   [A-1, A-12]"""
    table = schema.posting
    with reading(engine) as connection:
        height, last = _height_and_last(connection, as_of)
        query = sa.select(table.c.account, table.c.asset, *_exact_sum(table.c.atoms_high, table.c.atoms))
        query = query.where(table.c.journal_seq <= last).group_by(table.c.account, table.c.asset)
        sums = {(row[0], row[1]): _joined(row[2:]) for row in connection.execute(query)}
        batches = sa.select(schema.posting_batch).where(schema.posting_batch.c.journal_seq <= last)
        for row in connection.execution_options(stream_results=True).execute(batches):
            for account, asset, atoms in batch_of(row).postings():
                sums[account, asset] = sums.get((account, asset), 0) + atoms

    rows = [TrialRow(*key, max(atoms, 0), max(-atoms, 0)) for key, atoms in sorted(sums.items()) if atoms]
    totals: dict[AssetId, tuple[int, int]] = {asset: (0, 0) for _account, asset in sums}
    for entry in rows:
        debit, credit = totals[entry.asset]
        totals[entry.asset] = (debit + entry.debit, credit + entry.credit)
    return TrialBalance(height, rows, totals)


def trial_balance_json(engine: sa.Engine, as_of: int | None = None) -> dict[str, Any]:
    """The trial balance as `satchel trial-balance --json` prints it: names, and decimal strings.

    Rows in shares say what they are `worth` in their asset, on whichever side they are.   [B-4]
    """
    listed = assets(engine)
    trial = trial_balance(engine, as_of)
    signed = {(row.account, row.asset): row.debit - row.credit for row in trial.rows}

    def text(atoms: int, asset: AssetId) -> str:
        return format_decimal(atoms, listed[asset].decimals) if asset in listed else str(atoms)

    def symbol(asset: AssetId) -> str:
        return listed[asset].symbol if asset in listed else f"asset/{asset}"

    def worth(row: TrialRow) -> dict[str, str]:
        share = listed[row.asset].share if row.asset in listed else 0
        if not share:
            return {}
        asset = underlying(share)
        pool = shares.Pool(signed.get((shares.pool_account(share), asset), 0), signed.get((POOL_SHARES, share), 0))
        return {"worth": text(abs(shares.worth(pool, row.debit - row.credit)), asset)}

    def line(row: TrialRow) -> dict[str, str]:
        return {
            "account": account_name(row.account),
            "type": _type_name(row.account),
            "asset": symbol(row.asset),
            "debit": text(row.debit, row.asset),
            "credit": text(row.credit, row.asset),
            **worth(row),
        }

    return {
        "asOf": trial.as_of,
        "rows": [line(row) for row in trial.rows],
        "totals": {
            symbol(asset): {"debit": text(debit, asset), "credit": text(credit, asset)}
            for asset, (debit, credit) in sorted(trial.totals.items())
        },
    }


def statement(
    engine: sa.Engine, accounts: Sequence[AccountId], from_block: int = 0, to_block: int | None = None
) -> Iterator[StatementLine]:
    """Every posting on these accounts in blocks `from_block` … `to_block`, with the running balance.   [A-12]"""
    with reading(engine) as connection:
        before = last_journal(connection, from_block - 1) if from_block > 0 else 0
        last = last_journal(connection, to_block)
    running = {
        (account, asset): atoms
        for account in accounts
        for asset, atoms in (account_balances(engine, account, from_block - 1) if from_block > 0 else {}).items()
    }
    legs = sorted(_legs(engine, accounts, before, last))
    facts = _facts(engine, sorted({leg[0] for leg in legs}))
    listed = assets(engine)
    share_of = {asset: listed[asset].share for asset in {leg[3] for leg in legs} if asset in listed}
    pools = _pools(engine, from_block, before, legs, share_of)
    for seq, _order, account, asset, atoms in legs:
        held = running[account, asset] = running.get((account, asset), 0) + atoms
        share = share_of.get(asset, 0)
        worth = shares.worth(pools[share][seq], held) if share else None
        kind, memo = facts[seq][3:5]
        moved = shares.moved_atoms(kind, decode_memo(memo), account, asset, atoms) if is_pool_share(asset) else None
        yield StatementLine(seq, *facts[seq], account, asset, atoms, held, worth, moved)


def interest_posted(
    engine: sa.Engine, asset_ids: Collection[AssetId], as_of: int | None = None
) -> dict[AssetId, int]:
    """Asset → up to which time (µs) interest was posted in its money market by block `as_of`, where any was.   [B-4]"""
    table = schema.journal
    found: dict[AssetId, int] = {}
    if not asset_ids:
        return found
    query = sa.select(table.c.memo).where(table.c.kind == JournalKind.INTEREST).order_by(table.c.seq.desc())
    if as_of is not None:
        query = query.where(table.c.block_height <= as_of)
    with reading(engine) as connection:
        for (memo,) in connection.execution_options(stream_results=True).execute(query):
            asset, until_ms = decode_memo(bytes(memo))[:2]
            if asset in asset_ids and asset not in found:
                found[asset] = until_ms * 1_000
                if len(found) == len(asset_ids):
                    break
    return found


def last_journal(connection: sa.Connection, as_of: int | None) -> int:
    """Number of the newest journal transaction of block `as_of` or before; NoSuchBlock when there is no such block."""
    return _height_and_last(connection, as_of)[1]


def totals_by_kind(engine: sa.Engine, as_of: int | None = None) -> dict[tuple[int, AssetId], int]:
    """Signed sums per (account kind, asset) after block `as_of`, zeros left out: the recount for A-13."""
    sums: dict[tuple[int, AssetId], int] = {}
    table = schema.posting
    kind = table.c.account.op("/")(sa.literal(1 << OWNER_BITS, schema.Int))
    batch = schema.posting_batch
    with reading(engine) as connection:
        last = last_journal(connection, as_of)
        query = sa.select(kind.label("kind"), table.c.asset, *_exact_sum(table.c.atoms_high, table.c.atoms))
        query = query.where(table.c.journal_seq <= last).group_by(sa.text("1"), table.c.asset)
        for row in connection.execute(query):
            sums[int(row[0]), row[1]] = _joined(row[2:])
        query = sa.select(batch.c.account_kind, batch.c.asset, *_exact_sum(batch.c.total_high, batch.c.total))
        query = query.where(batch.c.journal_seq <= last).group_by(batch.c.account_kind, batch.c.asset)
        for row in connection.execute(query):
            sums[row[0], row[1]] = sums.get((row[0], row[1]), 0) + _joined(row[2:])
    return {key: atoms for key, atoms in sums.items() if atoms}


_HALF = 10**9
"""Each column is summed as two parts below this, so that no sum passes 64 bits before 9·10⁹ rows."""


def _exact_sum(high: sa.ColumnElement[int], low: sa.ColumnElement[int]) -> list[sa.ColumnElement[Any]]:
    half = sa.literal(_HALF, schema.Int)
    parts = [column.op(sign)(half) for column in (high, low) for sign in ("/", "%")]
    return [sa.func.sum(part) for part in parts]


def _joined(parts: Sequence[Any]) -> int:
    high_quotient, high_rest, quotient, rest = (int(part or 0) for part in parts)
    return (high_quotient * _HALF + high_rest) * ATOMS_SPLIT + quotient * _HALF + rest


def _height_and_last(connection: sa.Connection, as_of: int | None) -> tuple[int, int]:
    table = schema.block
    query = sa.select(table.c.height, table.c.first_journal + table.c.journal_count - 1)
    query = query.order_by(table.c.height.desc()).limit(1)
    if as_of is not None:
        query = query.where(table.c.height == as_of)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NoSuchBlock("the log is empty" if as_of is None else f"no block {as_of}")
    return row[0], row[1]


def _batches_of(
    connection: sa.Connection, account: AccountId, asset: AssetId | None, after: int, last: int
) -> Iterator[tuple[int, int, AssetId]]:
    """(journal seq, atoms, asset) of the account's rows in columnar batches."""
    table = schema.posting_batch
    query = sa.select(table).where(
        table.c.account_kind == kind_of(account), table.c.journal_seq > after, table.c.journal_seq <= last
    )
    if asset is not None:
        query = query.where(table.c.asset == asset)
    for row in connection.execute(query.order_by(table.c.journal_seq, table.c.line)):
        atoms = batch_of(row).atoms_of(owner_of(account))
        if atoms:
            yield row.journal_seq, atoms, row.asset


def _legs(
    engine: sa.Engine, accounts: Sequence[AccountId], after: int, last: int
) -> Iterator[tuple[int, int, AccountId, AssetId, int]]:
    table = schema.posting
    query = sa.select(table).where(table.c.account == sa.bindparam("account"), table.c.journal_seq > after)
    query = query.where(table.c.journal_seq <= last)
    order = 1 << 32
    """Batches come after the postings of their transaction."""
    with reading(engine) as connection:
        for account in dict.fromkeys(accounts):
            for row in connection.execute(query, {"account": account}):
                yield row.journal_seq, row.line, account, row.asset, join_atoms(row.atoms_high, row.atoms)
            for seq, atoms, asset in _batches_of(connection, account, None, after, last):
                yield seq, order, account, asset, atoms


def _pools(
    engine: sa.Engine,
    from_block: int,
    before: int,
    legs: Sequence[tuple[int, int, AccountId, AssetId, int]],
    share_of: Mapping[AssetId, AssetId],
) -> dict[AssetId, dict[int, shares.Pool]]:
    """Share → journal transaction → what the shares divide after it, for those in which the legs move shares."""
    wanted: dict[AssetId, dict[int, None]] = {}
    for seq, _order, _account, asset, _atoms in legs:
        if share_of.get(asset):
            wanted.setdefault(share_of[asset], {})[seq] = None
    pools = {}
    for share, seqs in wanted.items():
        opening = pool_of(engine, share, from_block - 1) if from_block > 0 else shares.Pool(0, 0)
        with reading(engine) as connection:
            pools[share] = shares.pools_after(connection, share, opening, before, list(seqs))
    return pools


def _facts(engine: sa.Engine, seqs: Sequence[int]) -> dict[int, tuple[int, int, int, int, bytes]]:
    table = schema.journal
    query = sa.select(
        table.c.seq, table.c.command_seq, table.c.block_height, table.c.at_us, table.c.kind, table.c.memo
    )
    facts = {}
    with reading(engine) as connection:
        for start in range(0, len(seqs), 500):
            for row in connection.execute(query.where(table.c.seq.in_(seqs[start : start + 500]))):
                facts[row[0]] = (row[1], row[2], row[3], row[4], bytes(row[5]))
    return facts


def _type_name(account: AccountId) -> str:
    try:
        kind: AccountType = account_type(account)
    except KeyError:
        return "unknown"
    return kind.name.lower()
