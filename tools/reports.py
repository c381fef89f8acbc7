"""Reports on the ledger: `satchel trial-balance`, `statement` and `receipt`, now or as of any block.   [A-4, A-12]"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ledger import balances, schema, shares
from ledger.amounts import format_decimal
from ledger.balances import PERPETUAL_SUFFIX, STATEMENT_KINDS, Asset, NoSuchBlock
from ledger.chart import (
    CHART,
    AccountId,
    AccountKind,
    AssetId,
    account_id,
    account_name,
    asset_symbol,
    contracts,
    cost,
    is_of_amm,
    is_of_market,
    kind_of,
    market_of,
    pool_of,
    underlying,
)
from ledger.decoding import EncodingError, decode_header
from ledger.journal import JournalKind, decode_memo
from ledger.liquidity import depths
from ledger.positions import POSITION_AMOUNTS, POSITION_QUANTITIES, position_periods
from ledger.receipts import ReceiptError, make_receipt, verify_receipt
from ledger.store import Store
from tools import keys
from tools.node_data import reading
from tools.terminal import DEFAULT_DATA, FINDINGS, FINE, CannotRun, print_json, print_table, say


def trial_balance(data: Path, database: str | None, as_of: int | None, as_json: bool) -> int:
    """Every account's balance and, per asset, the sum of both sides; 1 when they differ.   [A-1, A-12]"""
    with reading(data, database) as engine:
        try:
            document = balances.trial_balance_json(engine, as_of)
        except NoSuchBlock as problem:
            raise _no_such_block(engine, problem) from None
    unequal = [asset for asset, total in document["totals"].items() if total["debit"] != total["credit"]]
    if as_json:
        print_json(document)
    else:
        names = ["account", "type", "asset", "debit", "credit", *_worth_column(document["rows"])]
        rows = [[_with_asset(row, name) for name in names] for row in document["rows"]]
        totals = document["totals"].items()
        rows += [["total", "", asset, total["debit"], total["credit"], ""][: len(names)] for asset, total in totals]
        print_table(names, rows, numbers=(3, 4, 5))
        print(f"as of block {document['asOf']}")
    for asset in unequal:
        total = document["totals"][asset]
        say(f"OUT OF BALANCE: {asset} has {total['debit']} in debits and {total['credit']} in credits")
    say("not verified: sums of the rows as they are stored; `satchel verify-journal` proves them")
    return FINDINGS if unequal else FINE


def statement(
    data: Path,
    database: str | None,
    subaccount: int,
    since: str | None,
    until: str | None,
    as_of: int | None,
    as_json: bool,
) -> int:
    """What moved a subaccount's funds between two blocks: opening, lines with running balance, closing.   [A-12]"""
    with reading(data, database) as engine:
        try:
            document = _statement(engine, subaccount, since, until, as_of)
        except NoSuchBlock as problem:
            raise _no_such_block(engine, problem) from None
    moved = [line.pop("moved") for line in document["lines"]]
    if as_json:
        print_json(document)
        return FINE
    names = ["time", "block", "journal", "kind", "account", "asset", "amount", "balance"]
    names += _worth_column(document["lines"])
    print(f"subaccount {subaccount}, blocks {document['fromBlock']} … {document['toBlock']}")
    rows = [[_with_asset(line, name) for name in names] for line in document["lines"]]
    headings = [*names]
    if "worth" in names:
        # Of shares both: what was moved in their asset, and what the balance after it was worth.
        headings = [*names[:7], "amount in asset", "balance", "balance worth"]
        rows = [[*row[:7], words, *row[7:]] for row, words in zip(rows, moved, strict=True)]
    print_table(headings, rows, numbers=(1, 2, 6, 7, 8, 9))
    for title in ("opening", "closing"):
        held = [_holding_in_words(row) for row in document[title]]
        print(f"{title}: {', '.join(held) or 'nothing'}")
    for each in document["positions"]:
        print(_position_in_words(each))
    if document["interestPostedTo"]:
        posted = [f"{time} ({asset})" for asset, time in document["interestPostedTo"].items()]
        print(f"interest posted to {', '.join(posted)}: what has accrued since is in no worth above")
    return FINE


def receipt(
    data: Path,
    database: str | None,
    seq: int | None,
    subaccount: int | None,
    out: Path | None,
    verify: Path | None,
    public_key: str | None,
    as_json: bool,
) -> int:
    """Write a journal transaction's receipt, or verify one without any database.   [A-4]

    Of a transaction in columns (a settlement tick) it proves the rows of `subaccount`.   [S-14]
    """
    if (seq is None) == (verify is None):
        raise CannotRun("nothing to do", "give the number of a journal transaction, or --verify FILE")
    if verify is not None:
        return _verify_receipt(verify, public_key, _assets_at_hand(data, database), as_json)
    assert seq is not None
    with reading(data, database) as engine:
        try:
            store = Store(engine)
            document = make_receipt(store, seq, *([] if subaccount is None else _with_rows(store, seq, subaccount)))
        except ReceiptError as problem:
            raise CannotRun(str(problem), "`satchel statement SUBACCOUNT` lists the numbers") from None
    if out is None:
        print_json(document)
        return FINE
    out.write_text(json.dumps(document, indent=2) + "\n")
    if as_json:
        print_json({"file": str(out), **document["about"]})
    else:
        say(f"receipt of journal transaction {seq} written to {out}")
    return FINE


def _with_rows(store: Store, seq: int, subaccount: int) -> list[AccountId]:
    """Those of the subaccount's accounts that have a row in the transaction's columns."""
    accounts = [account_id(kind, subaccount) for kind in STATEMENT_KINDS]
    batches = [batch for entry in store.journal(seq, seq) for batch in entry.batches]
    return [
        account
        for account in accounts
        if any(batch.account_kind == kind_of(account) and batch.atoms_of(subaccount) for batch in batches)
    ]


# Statements.


def _statement(
    engine: sa.Engine, subaccount: int, since: str | None, until: str | None, as_of: int | None
) -> dict[str, Any]:
    user_id = _owner(engine, subaccount)
    first = 0 if since is None else _first_block(engine, since)
    last = _last_block(engine, until, as_of)
    accounts = [account_id(kind, subaccount) for kind in STATEMENT_KINDS]
    listed = balances.assets(engine)
    lines = []
    if first <= last:
        for line in balances.statement(engine, accounts, first, last):
            lines.append(
                {
                    "time": utc(line.at_us),
                    "block": line.block_height,
                    "journal": line.journal_seq,
                    "command": line.command_seq,
                    "kind": _kind_name(line.kind),
                    "account": _kept_as(line.account),
                    "asset": _symbol(listed, line.asset),
                    "amount": _owed(listed, line.account, line.asset, line.atoms),
                    "balance": _owed(listed, line.account, line.asset, line.balance),
                    **_worth(listed, line.account, line.asset, line.worth),
                    "moved": _moved(listed, line),
                }
            )
    closing = _holdings(engine, accounts, listed, last) if last >= 0 else []
    return {
        "subaccountId": subaccount,
        "userId": user_id,
        "fromBlock": first,
        "toBlock": last,
        "opening": _holdings(engine, accounts, listed, first - 1) if first > 0 else [],
        "lines": lines,
        "closing": closing,
        "positions": _positions(engine, subaccount, listed, first, last),
        "interestPostedTo": _interest_posted(engine, listed, closing, last),
    }


def _positions(
    engine: sa.Engine, subaccount: int, listed: Mapping[AssetId, Asset], first: int, last: int
) -> list[dict[str, str]]:
    """What became of each perpetual position in the period.   [C-5, S-10]"""
    if first > last:
        return []
    rows = []
    for period in position_periods(engine, subaccount, first, last):
        base, quote = listed[contracts(period.market_id)], listed[cost(period.market_id)]
        row = {"market": base.symbol}
        row |= {name: format_decimal(getattr(period, name), base.decimals) for name in POSITION_QUANTITIES}
        row |= {name: format_decimal(getattr(period, name), quote.decimals) for name in POSITION_AMOUNTS}
        rows.append(row)
    return rows


def _position_in_words(row: Mapping[str, str]) -> str:
    market = row["market"]
    quantities = f"{row['opening']} + {row['bought']} − {row['sold']} = {row['closing']}"
    parts = ", ".join(f"{name} {row[name]}" for name in ("traded", "funding", "shared", "marked"))
    settled = f"settled {row['settled']}, not settled yet {row['cost']}, fees {row['fees']}"
    return f"position in {market}: {quantities}; {parts}; {settled}"


def _interest_posted(
    engine: sa.Engine, listed: Mapping[AssetId, Asset], closing: Sequence[Mapping[str, Any]], last: int
) -> dict[str, str]:
    """Asset → up to when the interest is in what its shares are worth at the end.   [B-4]"""
    symbols = {_underlying_symbol(row["asset"]) for row in closing if "worth" in row}
    held = [asset_id for asset_id, asset in listed.items() if asset.symbol in symbols]
    posted = balances.interest_posted(engine, held, last)
    return {listed[asset_id].symbol: utc(at_us) for asset_id, at_us in sorted(posted.items())}


def _moved(listed: Mapping[AssetId, Asset], line: balances.StatementLine) -> str:
    """What a movement of shares was in their asset, for people; nothing for a movement of the asset itself.   [B-4]"""
    if line.moved is None:
        return ""
    asset = underlying(line.asset)
    return f"{_owed(listed, line.account, asset, line.moved)} {_symbol(listed, asset)}"


def _owner(engine: sa.Engine, subaccount: int) -> int:
    table = schema.journal
    query = sa.select(table.c.memo).where(table.c.kind == JournalKind.SUBACCOUNT_OPENED)
    with engine.connect() as connection:
        for (memo,) in connection.execute(query):
            user_id, opened = decode_memo(memo)[:2]
            if opened == subaccount:
                return int(user_id)
    raise CannotRun(
        f"no subaccount {subaccount} in this log", "`satchel trial-balance` lists the accounts that hold funds"
    )


def _holdings(
    engine: sa.Engine, accounts: list[AccountId], listed: Mapping[AssetId, Asset], as_of: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for account in accounts:
        held = balances.account_balances(engine, account, as_of)
        for asset, atoms in sorted(held.items()):
            share = listed[asset].share if asset in listed else 0
            worth = shares.worth(balances.pool_of(engine, share, as_of), atoms) if share else None
            rows.append(
                {
                    "account": _kept_as(account),
                    "asset": _symbol(listed, asset),
                    "balance": _owed(listed, account, asset, atoms),
                    **_worth(listed, account, asset, worth),
                    **_units_worth(engine, listed, account, asset, atoms, as_of),
                }
            )
    return rows


def _units_worth(
    engine: sa.Engine, listed: Mapping[AssetId, Asset], account: AccountId, asset: AssetId, atoms: int, as_of: int
) -> dict[str, dict[str, str]]:
    """Of units in a liquidity pool: what they are of both sides' depths after the block.   [X-4]"""
    if kind_of(account) != AccountKind.AMM_UNITS:
        return {}
    pool = depths(engine, pool_of(asset), as_of)
    parts = zip((pool.native_asset, pool_of(asset)), pool.part(-atoms), strict=True)
    return {"partOfPool": {_symbol(listed, one): format_decimal(part, listed[one].decimals) for one, part in parts}}


def _first_block(engine: sa.Engine, since: str) -> int:
    """The first block of a period: a height, or the first block at or after a UTC time."""
    if since.isdigit():
        return int(since)
    table = schema.block
    earlier = sa.select(sa.func.max(table.c.height)).where(table.c.at_us < _microseconds(since))
    with engine.connect() as connection:
        height = connection.execute(earlier).scalar_one()
    return 0 if height is None else int(height) + 1


def _last_block(engine: sa.Engine, until: str | None, as_of: int | None) -> int:
    """The last block of a period: a height, or the last block before a UTC time; never above `as_of`."""
    table = schema.block
    query = sa.select(sa.func.max(table.c.height))
    if until is not None and not until.isdigit():
        query = query.where(table.c.at_us < _microseconds(until))
    with engine.connect() as connection:
        newest = connection.execute(query).scalar_one()
    last = -1 if newest is None else int(newest)
    for limit in (int(until) if until is not None and until.isdigit() else None, as_of):
        if limit is not None:
            if limit > last and until is None:
                raise NoSuchBlock(f"no block {limit}")
            last = min(last, limit)
    return last


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CannotRun(f"neither a block height nor a time: {text!r}", "write 1234, or 2026-11-22T10:00:00") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def utc(at_us: int) -> str:
    """A moment in µs since 1970 as people read it."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def _kind_name(kind: int) -> str:
    return JournalKind(kind).name.lower() if kind in JournalKind.__members__.values() else f"kind-{kind}"


def _kept_as(account: AccountId) -> str:
    """How a statement calls one of a subaccount's accounts: as the chart does, or else by its kind.

    The ledger's available account is all that the subaccount holds, what its open orders lock included: `held`.
    """
    kind = AccountKind(kind_of(account))
    if kind == AccountKind.AVAILABLE:
        return "held"
    name = CHART[kind].name
    return name.removeprefix("subaccount/{}/") if name.startswith("subaccount/{}/") else kind.name.lower()


def _symbol(listed: Mapping[AssetId, Asset], asset: AssetId) -> str:
    return listed[asset].symbol if asset in listed else f"asset/{asset}"


def _worth(
    listed: Mapping[AssetId, Asset], account: AccountId, asset: AssetId, atoms: int | None
) -> dict[str, str]:
    """Of a balance in shares: what it is worth in their asset, or for a claim in the pool's.   [B-4, V-2]"""
    if atoms is None:
        return {}
    return {"worth": _owed(listed, account, underlying(listed[asset].share), atoms)}


def _worth_column(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A column for what shares are worth, where there are any."""
    return ["worth"] if any("worth" in row for row in rows) else []


def _with_asset(row: Mapping[str, Any], name: str) -> str:
    """A field of a row; what shares are worth with the asset that it is in, and nothing where there are none."""
    if name != "worth":
        return str(row[name])
    return f"{row['worth']} {_underlying_symbol(row['asset'])}" if "worth" in row else ""


def _holding_in_words(row: Mapping[str, Any]) -> str:
    words = f"{row['balance']} {row['asset']} {row['account']}"
    if "partOfPool" in row:
        parts = " and ".join(f"{amount} {asset}" for asset, amount in row["partOfPool"].items())
        return f"{words} (of the pool {parts})"
    return f"{words} (worth {_with_asset(row, 'worth')})" if "worth" in row else words


def _underlying_symbol(symbol: str) -> str:
    """What shares are worth something in: `SOL` of `SOL.lend`, `USDC` of `SOL_USDC_PERP.claim`."""
    name = symbol.rsplit(".", 1)[0]
    return name.removesuffix(PERPETUAL_SUFFIX).rsplit("_", 1)[-1] if name.endswith(PERPETUAL_SUFFIX) else name


def _owed(listed: Mapping[AssetId, Asset], account: AccountId, asset: AssetId, atoms: int) -> str:
    """As the customer reads it: positive is theirs; what they owe (a loan, a receivable) is negative."""
    assert kind_of(account) in STATEMENT_KINDS
    return format_decimal(-atoms, listed[asset].decimals) if asset in listed else str(-atoms)


def _no_such_block(engine: sa.Engine, problem: NoSuchBlock) -> CannotRun:
    with engine.connect() as connection:
        newest = connection.execute(sa.select(sa.func.max(schema.block.c.height))).scalar_one()
    if newest is None:
        return CannotRun("the log is empty: no block is there yet", "start the exchange once: `satchel serve`")
    return CannotRun(str(problem), f"the newest block is {newest}")


# Receipts.


def _assets_at_hand(data: Path, database: str | None) -> dict[AssetId, Asset]:
    """The assets of a ledger that the command names: a receipt alone does not say what asset 5 is called."""
    if database is None and data == DEFAULT_DATA:
        return {}
    with reading(data, database) as engine:
        return balances.assets(engine)


def _verify_receipt(file: Path, public_key: str | None, listed: Mapping[AssetId, Asset], as_json: bool) -> int:
    try:
        document = json.loads(file.read_text())
        own_key = decode_header(b64decode(document["header"], validate=True)).public_key
    except (ValueError, KeyError, TypeError, EncodingError) as problem:
        raise CannotRun(f"{file} is no receipt: {problem}", "write one with `satchel receipt SEQ --out FILE`") from None
    key = own_key if public_key is None else keys.public_key(public_key)
    try:
        proven = verify_receipt(document, key)
    except ReceiptError as problem:
        if as_json:
            print_json({"valid": False, "reason": str(problem)})
        else:
            print(f"NOT VALID: {problem}")
        return FINDINGS
    facts = proven.transaction
    report = {
        "valid": True,
        "publicKey": b64encode(key).decode(),
        "block": proven.header.height,
        "journal": facts.seq,
        "command": facts.command_seq,
        "time": utc(facts.at_us),
        "kind": _kind_name(facts.kind),
        "hash": proven.transaction_hash.hex(),
        "postings": [
            {"account": account_name(one[0]), "asset": one[1], "atoms": str(one[2])} for one in facts.postings
        ],
    }
    rows = [row for row in (proven.row, *proven.further) if row is not None]
    if rows:
        report["rows"] = [
            {"account": account_name(row.account), "asset": row.asset, "atoms": str(row.atoms)} for row in rows
        ]
    if as_json:
        print_json(report)
        return FINE
    print(
        f"valid: journal transaction {facts.seq} ({report['kind']}) of block {proven.header.height}, {report['time']}"
    )
    for account, asset, atoms in [*facts.postings, *rows]:
        side = "debit " if atoms > 0 else "credit"
        name = f"market/{market_of(asset)}" if is_of_market(asset) else str(underlying(asset))
        name = f"pool/{pool_of(asset)}" if is_of_amm(asset) else name
        amount = f"{abs(atoms)} atoms of asset {asset_symbol(asset, name)}"
        if asset in listed:
            amount = f"{format_decimal(abs(atoms), listed[asset].decimals)} {listed[asset].symbol}"
        print(f"  {side} {account_name(account)}  {amount}")
    if not listed:
        say("amounts are in atoms: --data or --database names a ledger that says how many decimals an asset has")
    if public_key is None:
        say(f"signed by {report['publicKey']}: is that the exchange's key? --public-key holds it to one you trust")
    return FINE
