#!/usr/bin/env python3
"""Check a Satchel proof of reserves by yourself: one file, Python's standard library only, no network.

    python verifier.py proof.json [--user ID] [--subaccount ID] [--key KEY] [--checkpoint FILE]
                       [--previous-checkpoint FILE] [--remember FILE] [--witness KEY] [--max-price-age SECONDS]

`proof.json` is what the exchange gave you: the proof of your account in one epoch, or the export of the whole log.
Exit code 0: verified. 1: not verified. 2: could not run (no such file, not JSON, wrong arguments).

It shares no code with the exchange. The format is described in docs/proof-of-reserves.md, section by section.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = Any
Key = tuple[str, bytes]  # who signs ("": any name) and the Ed25519 public key
Point = tuple[int, int, int, int]

COLUMN_LIMIT = 2**128  # a sum of columns is below this
LEAF_LIMIT = 2**87  # one account's amount is below this
NUMBER_LIMIT = 2**53  # identifiers and counters are below this
HOUR_US = 3_600_000_000
RATIO_SCALE = 10**9
MAX_PRICE_AGE_SECONDS = 3600
COUNT_COLUMN = "accounts"
NEGATIVE_COLUMN = "negative_accounts"
POOL_COLUMNS = ("lent", "borrowed", "uncollected_yield")  # shown by the asset's pool, every other by the trial balance
MARKET_COLUMNS = (  # shown by the perpetual market's line
    "long", "short", "cost_plus", "cost_minus", "pnl_plus", "pnl_minus", "claim_plus", "claim_minus",
)  # fmt: skip
UNSETTLED_COLUMNS = ("unsettled_plus", "unsettled_minus", "recovery")  # shown by the header's `unsettled`
LIQUIDITY_COLUMNS = {  # shown by the liquidity pool's line: its amount, the asset of the ledger, 1 where users owe it
    "amm_units": ("units", "pool-units", -1),
    "amm_native_custody": ("nativeCustody", "native-custody", -1),
    "amm_external_custody": ("externalCustody", "custody", -1),
    "amm_native_owed": ("nativeOwed", "native-owed", 1),
    "amm_external_owed": ("externalOwed", "owed", 1),
}
PRICE_SCALE = 10**12
POOL_ACCOUNTS = ("pool_lent", "pool_borrowed", "pool_fees", "pool_yield", "pool_shares", "staked")


class NotVerified(Exception):
    """A check failed; the message says which, in words."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a Satchel proof of reserves, offline.")
    parser.add_argument("proof", help="proof.json of your account, or an export of the log")
    parser.add_argument("--user", type=int, help="your user id: the proof must be yours")
    parser.add_argument("--subaccount", type=int, help="your subaccount id")
    parser.add_argument("--key", help="the log's public key (base64, or name+id+key) from a place you trust")
    parser.add_argument("--checkpoint", help="a checkpoint that you got elsewhere; the proof must agree with it")
    parser.add_argument("--previous-checkpoint", help="a checkpoint that you saw before; history must not have changed")
    parser.add_argument("--remember", help="file that keeps the newest checkpoint you saw: checked, then replaced")
    parser.add_argument("--witness", action="append", default=[], help="a witness key name+id+key: must have cosigned")
    parser.add_argument("--max-price-age", type=int, default=MAX_PRICE_AGE_SECONDS, help="in seconds")
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return 0 if stop.code == 0 else 2

    try:
        document = json.loads(Path(options.proof).read_bytes().decode("utf-8"), object_pairs_hook=no_duplicates)
        known = [
            (name, Path(name).read_bytes().decode("utf-8"))
            for name in (options.checkpoint, options.previous_checkpoint)
            if name
        ]
        if options.remember and Path(options.remember).exists():
            known.append((options.remember, Path(options.remember).read_bytes().decode("utf-8")))
        key = decode_key(options.key, 0x01) if options.key else None
        witnesses = [decode_key(text, 0x04) for text in options.witness]
    except (OSError, ValueError, RecursionError, NotVerified) as error:
        print(plain(f"Could not run: {error}"), file=sys.stderr)
        return 2

    try:
        report, checkpoint = verify(
            document, key=key, known=known, witnesses=witnesses, user=options.user,
            subaccount=options.subaccount, max_price_age_s=options.max_price_age,
        )  # fmt: skip
    except NotVerified as failure:
        print(plain(f"NOT VERIFIED: {failure}"))
        return 1

    for line in report:
        print(plain(line))
    if options.remember:
        Path(options.remember).write_bytes(checkpoint.encode())
    return 0


def plain(line: str) -> str:
    """One line for the terminal: whatever the file says, it cannot move the cursor or add lines of its own."""
    return "".join(character if character.isprintable() else "?" for character in line)


def verify(
    document: Json,
    key: Key | None = None,
    known: Sequence[tuple[str, str]] = (),
    witnesses: Sequence[Key] = (),
    user: int | None = None,
    subaccount: int | None = None,
    max_price_age_s: int = MAX_PRICE_AGE_SECONDS,
) -> tuple[list[str], str]:
    """Check a proof or a log export. Returns (lines to print, newest checkpoint); raises NotVerified.

    `key`: (name or "", 32 bytes) that must have signed; `known`: (where from, text) of other checkpoints;
    `witnesses`: (name, 32 bytes) that must have cosigned.
    """
    form = document.get("format") if isinstance(document, dict) else None
    if form == "satchel-por-proof":
        return verify_proof(document, key, known, witnesses, user, subaccount, max_price_age_s)
    if form == "satchel-por-log":
        return verify_log(document, key, known, witnesses)
    raise NotVerified("this is neither a proof nor a log export of Satchel (wrong or missing format)")


# ------------------------------------------------------------------------------------------ the proof of one account


def verify_proof(
    proof: Json,
    key: Key | None,
    known: Sequence[tuple[str, str]],
    witnesses: Sequence[Key],
    user: int | None,
    subaccount: int | None,
    max_price_age_s: int,
) -> tuple[list[str], str]:
    fields(
        proof, "the proof", "format", "version", "leaf", "group", "sums", "header", "prices", "parameters",
        "codeVersion", "reserves", "log",
    )  # fmt: skip
    if type(proof["version"]) is not int or proof["version"] != 1:
        raise NotVerified(f"proof version {proof['version']} is not known to this verifier")

    header = read_row(text(proof["header"], "header"))
    if header["kind"] != "epoch":
        raise NotVerified(f"row {header['epoch']} of the log is a missed hour: it proves no balance")
    columns = header["columns"]
    totals = [decimal(total, "total") for total in header["totals"]]

    leaf = check_leaf(proof["leaf"], header, user, subaccount)
    check_tree(proof, header, leaf, totals)
    check_header_texts(proof, header)
    prices = check_prices(proof["prices"], header, max_price_age_s)
    sums = dict(zip(columns, totals, strict=True))
    decimals = decimals_of(proof["parameters"])
    markets = check_markets(header, sums, prices, decimals)
    pools = check_pools(header, sums, markets)
    check_own_loans(leaf, columns, pools)
    check_own_positions(leaf, columns, pools, markets)
    liquidity = check_liquidity(header, sums)
    check_own_longs(leaf, columns, liquidity)
    assets, loans = check_conservation(header, sums, pools, markets, liquidity)
    decimals = {**decimals, **market_decimals(markets, decimals), **liquidity_decimals(liquidity, decimals)}
    reserves = check_reserves(proof["reserves"], header, assets, loans, decimals)
    log_lines, checkpoint = check_log_part(proof["log"], header, key, known, witnesses)

    report = [
        f"VERIFIED: epoch {header['epoch']} of {header['exchange']}",
        "",
        "What was checked:",
        f"  - Your leaf (user {leaf['userId']}, subaccount {leaf['subaccountId']}) is leaf {leaf['index']} of"
        f" {header['accounts']} in the tree of liabilities, with the amounts below.",
        "  - Every sum on the way to the root was added up again, column by column, without overflow;",
        "    your group's sums are at least your own amounts.",
        "  - The totals, the price set, the collateral parameters, the code version and the reserves statement are",
        "    those that the epoch's header commits to.",
        f"  - Liabilities equal the ledger's trial balance, and every asset sums to zero, at ledger block"
        f" {header['blockHeight']} ({header['blockHash']}).",
        *pool_check_lines(pools),
        *market_check_lines(markets),
        *liquidity_check_lines(liquidity),
        *log_lines,
        *snapshot_lines(header, prices),
        "",
        "Your leaf, column by column:",
        *[
            f"  {column:<28} {quantity(amount, column, decimals)}"
            for column, amount in zip(columns, leaf["amounts"], strict=True)
            if column not in (COUNT_COLUMN, NEGATIVE_COLUMN)
        ],
        *[f"  {name:<28} {json.dumps(value)}" for name, value in leaf["detailLines"].items()],
        *own_share_lines(leaf, columns, liquidity, decimals),
        "Compare these with what the exchange shows you. If they differ, this proof is your evidence.",
        "",
        "All accounts together:",
        *[
            f"  {column:<28} {quantity(total, column, decimals)}"
            for column, total in sums.items()
        ],
        *negative_lines(header, sums),
        *pool_lines(pools, decimals),
        *market_lines(header, markets, sums, decimals),
        *liquidity_lines(liquidity, decimals),
        "",
        "Reserves against liabilities, asset by asset (as stated by the exchange):",
        *reserves,
        "",
        "What this cannot prove:",
        "  - That accounts which nobody checks are included. The more users check, the harder an omission is to hide.",
        f"  - The sums inside your group of {2 ** header['groupBits']} leaves: they stay hidden to protect the others;",
        "    an auditor who replays the ledger checks them.",
        "  - That the reserves exist, belong to the exchange and are not pledged elsewhere: this epoch states them,",
        "    ownership proofs are separate.",
        *([] if user is not None else ["  - That the ids above are yours: say --user, and this program checks it."]),
        *(
            []
            if key
            else [
                "  - That the exchange signed this: the key came with the proof itself. Take the key from a place",
                "    you trust and say --key.",
            ]
        ),
    ]
    return report, checkpoint


def check_leaf(leaf: Json, header: Json, user: int | None, subaccount: int | None) -> Json:
    """Your leaf's own fields: ids, salt, amounts in range, canonical detail."""
    fields(leaf, "leaf", "userId", "subaccountId", "index", "salt", "detail", "amounts")
    number(leaf["userId"], "userId")
    number(leaf["subaccountId"], "subaccountId")
    number(leaf["index"], "leaf index")
    if user is not None and leaf["userId"] != user:
        raise NotVerified(f"this proof is of user {leaf['userId']}, not of user {user}")
    if subaccount is not None and leaf["subaccountId"] != subaccount:
        raise NotVerified(f"this proof is of subaccount {leaf['subaccountId']}, not of {subaccount}")
    if leaf["index"] >= header["accounts"]:
        raise NotVerified(f"leaf index {leaf['index']} is beyond the {header['accounts']} accounts of the epoch")

    columns = header["columns"]
    amounts = vector(leaf["amounts"], columns, "leaf")
    for column, amount in zip(columns, amounts, strict=True):
        if amount >= LEAF_LIMIT:
            raise NotVerified(f"your column {column} is {amount}: beyond the limit of a leaf, it could make sums wrap")
    amount_of = dict(zip(columns, amounts, strict=True))
    for column, amount in amount_of.items():
        opposite = column[: -len("_plus")] + "_minus"
        if column.endswith("_plus") and amount and amount_of.get(opposite):
            raise NotVerified(f"your {column} and {opposite} are both non-zero: a signed quantity has one sign")
    if amount_of.get(COUNT_COLUMN) != 1:
        raise NotVerified("your leaf does not count as exactly one account")
    if "net_equity_minus" in amount_of and amount_of.get(NEGATIVE_COLUMN) != (amount_of["net_equity_minus"] > 0):
        raise NotVerified("your leaf is not counted rightly among the accounts below zero")

    detail = canonical(leaf["detail"], "detail")
    if not isinstance(detail, dict):
        raise NotVerified("the leaf's detail is not an object")
    return {**leaf, "amounts": amounts, "detailLines": detail, "salt": hexadecimal(leaf["salt"], 32, "salt")}


def check_tree(proof: Json, header: Json, leaf: Json, totals: list[int]) -> None:
    """From your leaf through the hash-only group and the sum tree to the root and totals in the header."""
    columns, epoch, group_bits, index = header["columns"], header["epoch"], header["groupBits"], leaf["index"]

    ids = u64(leaf["userId"]) + u64(leaf["subaccountId"])
    identity = sha256(tag(0x10) + ids + leaf["salt"])
    detail_hash = sha256(tag(0x20) + leaf["detail"].encode())
    node = sha256(place(0x00, epoch, 0, index) + leaf["salt"] + identity + detail_hash + packed(leaf["amounts"]))

    group = proof["group"]
    fields(group, "group", "path", "totals")
    if not isinstance(group["path"], list) or len(group["path"]) != group_bits:
        raise NotVerified(f"the path inside the group must have {group_bits} steps")
    position = index
    for level, step in enumerate(group["path"], start=1):
        sibling = hexadecimal(step, 32, "path step")
        left, right = (sibling, node) if position & 1 else (node, sibling)
        position >>= 1
        node = sha256(place(0x01, epoch, level, position) + left + right)

    running = vector(group["totals"], columns, "group")
    for column, mine, together in zip(columns, leaf["amounts"], running, strict=True):
        if mine > together:
            raise NotVerified(f"your {column} is {mine}, but your whole group is said to hold only {together}")
    node = sha256(place(0x02, epoch, group_bits, position) + node + packed(running))

    groups = max(1, -(-header["accounts"] // 2**group_bits))
    if not isinstance(proof["sums"], list) or len(proof["sums"]) != (groups - 1).bit_length():
        raise NotVerified(f"the path above the group must have {(groups - 1).bit_length()} steps for {groups} groups")
    for level, step in enumerate(proof["sums"], start=group_bits + 1):
        fields(step, "sum node", "hash", "totals")
        sibling = hexadecimal(step["hash"], 32, "path step")
        theirs = vector(step["totals"], columns, "sum node")
        mine = node + packed(running)
        other = sibling + packed(theirs)
        left, right = (other, mine) if position & 1 else (mine, other)
        position >>= 1
        node = sha256(place(0x03, epoch, level, position) + left + right)
        running = [a + b for a, b in zip(running, theirs, strict=True)]
        for column, total in zip(columns, running, strict=True):
            if total >= COLUMN_LIMIT:
                raise NotVerified(f"the sum of {column} overflows")

    if node != hexadecimal(header["liabilitiesRoot"], 32, "liabilitiesRoot"):
        raise NotVerified("your leaf does not lead to the root of liabilities in the epoch's header")
    for column, total, stated in zip(columns, running, totals, strict=True):
        if total != stated:
            raise NotVerified(f"{column} adds up to {total}, the header states {stated}")


# ------------------------------------------------------------------------------------------- the header and its texts


def read_row(row_text: str) -> Json:
    """Parse one row of the log (an epoch's header, or a missed hour) and check that it makes sense by itself."""
    row = canonical(row_text, "header")
    shared = (
        "version", "kind", "exchange", "epoch", "previous", "hour", "firstHour", "lastHour", "missedHours", "atUs",
        "blockHeight", "accounts",
    )  # fmt: skip
    kind = row.get("kind") if isinstance(row, dict) else None
    if kind == "missed":
        fields(row, "missed row", *shared, "reason")
        text(row["reason"], "reason")
    elif kind == "epoch":
        # Version 2 has perpetual markets, version 3 liquidity pools; whoever leaves them out cannot show their columns.
        has_markets, has_liquidity = row.get("version") in (2, 3), row.get("version") == 3
        fields(
            row, "header", *shared, "blockHash", "journalRoot", "opened", "closed", "pricesHash", "priceMaxAgeUs",
            "parametersHash", "codeHash", "reservesHash", "columns", "groupBits", "liabilitiesRoot", "totals",
            "trialBalance", "system", "pools", "insurance", "hole",
            *(("markets", "unsettled", "poolHoles") if has_markets else ()),
            *(("liquidityPools",) if has_liquidity else ()),
        )  # fmt: skip
        check_header_fields(row)
    else:
        raise NotVerified("a row of the log is either an epoch or a missed hour")

    if type(row["version"]) is not int or row["version"] not in ((1, 2, 3) if kind == "epoch" else (1,)):
        raise NotVerified(f"header version {row['version']} is not known to this verifier")
    text(row["exchange"], "exchange")
    hexadecimal(row["previous"], 32, "previous")
    for name in ("epoch", "missedHours", "atUs", "blockHeight", "accounts"):
        number(row[name], name)
    check_hours(row)
    return {**row, "text": row_text}


def check_hours(row: Json) -> None:
    hours = [row["hour"], row["firstHour"], row["lastHour"]]
    for hour in hours:
        if hour is not None:
            number(hour, "hour")
    if (row["firstHour"] is None) != (row["lastHour"] is None):
        raise NotVerified("first and last hour must both be there or both be missing")
    if row["hour"] is not None and row["hour"] != row["lastHour"]:
        raise NotVerified(f"the row is of hour {row['hour']}, but says that the last hour is {row['lastHour']}")
    if row["kind"] == "epoch" and row["hour"] is not None and not 0 <= row["atUs"] - row["hour"] * HOUR_US < HOUR_US:
        raise NotVerified(f"the epoch of hour {row['hour']} is not a snapshot within that hour")
    span = 0 if row["lastHour"] is None else row["lastHour"] - row["firstHour"] + 1
    if (row["lastHour"] is not None and span < 1) or row["missedHours"] > span:
        raise NotVerified(f"{row['missedHours']} missed hours of {span} hours make no sense")


def check_header_fields(header: Json) -> None:
    for name in (
        "blockHash",
        "journalRoot",
        "pricesHash",
        "parametersHash",
        "codeHash",
        "reservesHash",
        "liabilitiesRoot",
    ):
        hexadecimal(header[name], 32, name)
    for name in ("opened", "closed", "priceMaxAgeUs", "groupBits"):
        number(header[name], name)
    if header["groupBits"] > 16:
        raise NotVerified(f"groups of 2^{header['groupBits']} leaves are not allowed")
    columns = header["columns"]
    if not isinstance(columns, list) or not all(isinstance(name, str) and name for name in columns):
        raise NotVerified("the columns must be a list of names")
    if len(set(columns)) != len(columns) or COUNT_COLUMN not in columns:
        raise NotVerified("a column is there twice, or the count of accounts is missing")
    totals = dict(zip(columns, vector(header["totals"], columns, "header"), strict=True))
    if totals[COUNT_COLUMN] != header["accounts"]:
        raise NotVerified(f"the header states {header['accounts']} accounts, the leaves count {totals[COUNT_COLUMN]}")

    insurance = decimal(header["insurance"], "insurance")
    deficit = totals.get("net_equity_minus", 0)
    if ("net_equity_minus" in totals) != (NEGATIVE_COLUMN in totals):
        raise NotVerified("accounts below zero are not counted")
    if decimal(header["hole"], "hole") != max(0, deficit - insurance):
        raise NotVerified(
            f"deficits of {deficit} with {insurance} of insurance do not leave a hole of {header['hole']}"
        )


def check_header_texts(proof: Json, header: Json) -> None:
    """The texts that the header commits to by their hash."""
    for name, kind, committed in (
        ("prices", 0x23, "pricesHash"),
        ("parameters", 0x24, "parametersHash"),
        ("codeVersion", 0x25, "codeHash"),
        ("reserves", 0x22, "reservesHash"),
    ):
        if sha256(tag(kind) + text(proof[name], name).encode()).hex() != header[committed]:
            raise NotVerified(f"{name} in the proof is not what the header commits to")
    canonical(proof["parameters"], "parameters")


def check_prices(prices_text: str, header: Json, max_price_age_s: int) -> Json:
    prices = canonical(prices_text, "prices")
    if not isinstance(prices, list):
        raise NotVerified("the price set is not a list")
    limit_us = min(header["priceMaxAgeUs"], max_price_age_s * 1_000_000)
    for price in prices:
        fields(price, "price", "asset", "price", "atUs")
        text(price["asset"], "asset")
        decimal(price["price"], "price")
        age_us = header["atUs"] - number(price["atUs"], "atUs")
        if not 0 <= age_us <= limit_us:
            raise NotVerified(
                f"the price of {price['asset']} is {age_us / 1e6:.1f} s old at the snapshot,"
                f" allowed are {limit_us / 1e6:.0f} s"
            )
    names = [price["asset"] for price in prices]
    if names != sorted(set(names)):
        raise NotVerified("the price set names an asset twice or out of order")
    return prices


def check_markets(
    header: Json, totals: dict[str, int], prices: Json, decimals: dict[str, int]
) -> dict[str, Json]:
    """Each perpetual market: as much is long as is short, what is gained is lost, its mark is in the price set.

    Costs and unrealized PnL of all users are zero but for what the exchange's own accounts of cost hold. Returns them.
    """
    markets: dict[str, Json] = {}
    for stated in array(header.get("markets", []), "markets"):
        fields(
            stated, "market", "market", "base", "quote", "lot", "mark", "settled", "cost", "claimLend", "claimDebt",
            "winners", "losers",
        )  # fmt: skip
        name = text(stated["market"], "market")
        line: Json = {key: text(stated[key], key) for key in ("base", "quote")}
        line |= {key: number(stated[key], key) for key in ("winners", "losers")}
        line |= {
            key: decimal(stated[key], f"{key} of {name}")
            for key in ("lot", "mark", "settled", "claimLend", "claimDebt")
        }
        line["cost"] = signed(stated["cost"], f"cost of {name}")
        check_market(name, line, header, totals)
        price = next((int(each["price"]) for each in prices if each["asset"] == name), 0)
        if {line["base"], line["quote"]} - set(decimals):
            raise NotVerified(f"{name}: the parameters do not say how many decimals its assets have")
        worth = line["mark"] * PRICE_SCALE * 10 ** decimals[line["base"]]
        if worth != price * line["lot"] * 10 ** decimals[line["quote"]]:
            raise NotVerified(f"{name}: a mark of {line['mark']} for a lot of {line['lot']} is not the price {price}")
        markets[name] = line
    if [line["market"] for line in header.get("markets", [])] != sorted(markets):
        raise NotVerified("the markets name one twice or out of order")
    if header["version"] == 2 and not (markets or header["unsettled"] or header["poolHoles"]):
        raise NotVerified("a header of version 2 is of an exchange that has perpetual markets or settles something")
    return markets


def check_market(name: str, line: Json, header: Json, totals: dict[str, int]) -> None:
    if not all(f"{name}.{column}" in totals for column in MARKET_COLUMNS):
        raise NotVerified(f"{name} is a market, but the leaves do not show its positions")
    longs, shorts, cost_plus, cost_minus, pnl_plus, pnl_minus = (totals[f"{name}.{c}"] for c in MARKET_COLUMNS[:6])
    if longs != shorts:
        raise NotVerified(f"{name}: {longs} atoms are long and {shorts} short")
    if not line["lot"] or longs % line["lot"] or (longs and not line["mark"]):
        raise NotVerified(f"{name}: {longs} atoms long, in lots of {line['lot']} at a mark of {line['mark']}")
    cost, pnl = cost_plus - cost_minus, pnl_plus - pnl_minus
    own = sum(
        signed(atoms, account)
        for account, atoms in object_of(header["system"], "system").items()
        if account.rpartition(".")[0] == f"{name}.cost"
    )
    if cost != -line["cost"]:
        raise NotVerified(f"{name}: costs sum to {cost}, the ledger says {-line['cost']}")
    if cost != own or pnl != own:
        raise NotVerified(f"{name}: costs sum to {cost} and PnL to {pnl}, the exchange's own accounts hold {own}")


def check_own_positions(leaf: Json, columns: list[str], pools: dict[str, Json], markets: dict[str, Json]) -> None:
    """Your unrealized PnL is quantity × mark + cost, exactly; a claim is what its shares in the pool are worth."""
    amount_of = dict(zip(columns, leaf["amounts"], strict=True))
    claims = leaf["detailLines"].get("claims", {})
    if not isinstance(claims, dict) or not set(claims) <= set(markets):
        raise NotVerified("your claims are of a market that is not there")
    for name, line in markets.items():
        longs, shorts, cost_plus, cost_minus, pnl_plus, pnl_minus, *claimed = (
            amount_of[f"{name}.{column}"] for column in MARKET_COLUMNS
        )
        if longs and shorts:
            raise NotVerified(f"your position in {name} is both long and short")
        lots, rest = divmod(longs - shorts, line["lot"])
        if rest:
            raise NotVerified(f"your position in {name} is {longs - shorts}, no whole lots of {line['lot']}")
        cost, pnl = cost_plus - cost_minus, pnl_plus - pnl_minus
        gained = lots * line["mark"] + cost
        if pnl != gained:
            raise NotVerified(
                f"{name}: {lots} lots at {line['mark']} and a cost of {cost} are {gained}, your leaf says {pnl}"
            )
        own = claims.get(name, {})
        if not isinstance(own, dict) or not set(own) <= {"lend", "debt"}:
            raise NotVerified(f"your claims of {name} are neither lent nor owed")
        pool = pools.get(line["quote"])
        for kind, all_shares, whole, atoms in (
            ("lend", "lendShares", "lent", claimed[0]),
            ("debt", "debtShares", "borrowed", claimed[1]),
        ):
            shares = decimal(own.get(kind, "0"), f"{kind} shares")
            if shares > line["claimLend" if kind == "lend" else "claimDebt"]:
                raise NotVerified(f"{name}: you have {shares} {kind} shares, all together have fewer")
            product = shares * pool[whole] if pool else 0
            divisor = max(1, pool[all_shares]) if pool else 1
            worth = product // divisor if kind == "lend" else -(-product // divisor)
            if worth != atoms:
                raise NotVerified(f"{name}: your {shares} {kind} shares are worth {worth}, your leaf says {atoms}")


def check_liquidity(header: Json, totals: dict[str, int]) -> dict[str, Json]:
    """Each liquidity pool: Σ units, custody and debts of the leaves are its own and its book's in the ledger; its coins
    are balance and custody, those of the native asset in all pools together. Returns them by their external asset.
    """
    system = object_of(header["system"], "system")
    pools: dict[str, Json] = {}
    coins: dict[str, int] = {}
    for stated in array(header.get("liquidityPools", []), "liquidityPools"):
        fields(
            stated, "liquidity pool", "pool", "native", "nativeBalance", "externalBalance", "nativeCustody",
            "externalCustody", "nativeOwed", "externalOwed", "units", "nativeFund", "externalFund",
        )  # fmt: skip
        name, native = text(stated["pool"], "pool"), text(stated["native"], "native")
        line: Json = {key: decimal(stated[key], f"{key} of {name}") for key in stated if key not in ("pool", "native")}
        for column, (kept, asset, sign) in LIQUIDITY_COLUMNS.items():
            if f"{name}.{column}" not in totals:
                raise NotVerified(f"{name} has a liquidity pool, but the leaves do not show its {column}")
            if totals[f"{name}.{column}"] != line[kept]:
                raise NotVerified(
                    f"{name}.{column}: leaves sum to {totals[f'{name}.{column}']}, the liquidity pool says {line[kept]}"
                )
            booked = signed(system.get(f"{name}.{asset}.amm_book", "0"), "amm_book")
            if booked != -sign * line[kept]:
                raise NotVerified(
                    f"{name}.{asset}: the liquidity pool says {line[kept]}, its book in the ledger {booked}"
                )
        for asset, side in ((name, "external"), (native, "native")):
            account = f"{asset}.amm_pool"
            coins[account] = coins.get(account, 0) - line[f"{side}Balance"] - line[f"{side}Custody"]
            coins[f"{asset}.amm_fund"] = coins.get(f"{asset}.amm_fund", 0) - line[f"{side}Fund"]
        pools[name] = {**line, "native": native}
    if [line["pool"] for line in header.get("liquidityPools", [])] != sorted(pools):
        raise NotVerified("the liquidity pools name one twice or out of order")
    if header["version"] == 3 and not pools:
        raise NotVerified("a header of version 3 is of an exchange that has liquidity pools")
    natives = {line["native"] for line in pools.values()}
    if len(natives) > 1 or natives & set(pools):
        raise NotVerified("liquidity pools have one native asset, and no pool of it")
    check_liquidity_accounts(system, pools, coins)
    return pools


def check_liquidity_accounts(system: Json, pools: dict[str, Json], coins: dict[str, int]) -> None:
    """The ledger's coins and funds of liquidity pools are those that the pools state; nothing of one is elsewhere."""
    for account, atoms in coins.items():
        if signed(system.get(account, "0"), account) != atoms:
            raise NotVerified(f"{account}: the liquidity pools have {atoms}, the ledger {system.get(account, '0')}")
    parts = {f"{name}.{asset}" for name in pools for _, asset, _ in LIQUIDITY_COLUMNS.values()}
    for account, atoms in system.items():
        asset, _, kind = account.rpartition(".")
        if not signed(atoms, account) or account in coins:
            continue
        if kind in ("amm_pool", "amm_fund") or (kind == "amm_book") != (asset in parts):
            raise NotVerified(f"{account} is not zero, but no liquidity pool shows it")


def check_own_longs(leaf: Json, columns: list[str], pools: dict[str, Json]) -> None:
    """What liquidity pools keep for your positions and what they owe is the sum of those that your detail lists."""
    amount_of = dict(zip(columns, leaf["amounts"], strict=True))
    own: dict[str, int] = {}
    for number_of, long in object_of(leaf["detailLines"].get("longs", {}), "longs").items():
        line = object_of(long, "long")
        name, collateral = line.get("pool"), line.get("collateralAsset")
        if not isinstance(name, str) or name not in pools or collateral not in (name, pools[name]["native"]):
            raise NotVerified(f"your position {number_of} is in a liquidity pool that is not there")
        owed, kept = ("external", "native") if collateral == name else ("native", "external")
        for column, amount in ((f"{name}.amm_{owed}_owed", "owed"), (f"{name}.amm_{kept}_custody", "custody")):
            own[column] = own.get(column, 0) + decimal(line.get(amount), f"{amount} of position {number_of}")
    for name in pools:
        for column in (f"{name}.{kind}" for kind in LIQUIDITY_COLUMNS if kind != "amm_units"):
            if own.get(column, 0) != amount_of[column]:
                raise NotVerified(
                    f"your positions have {own.get(column, 0)} of {column} together, your leaf says {amount_of[column]}"
                )


def check_pools(header: Json, totals: dict[str, int], markets: dict[str, Json]) -> dict[str, Json]:
    """Each money market balances, and users' claims and debts are its own but for dust. Returns them by asset."""
    pools: dict[str, Json] = {}
    system = object_of(header["system"], "system")
    for stated in array(header["pools"], "pools"):
        fields(
            stated, "pool", "asset", "lent", "fees", "borrowed", "idle", "staked", "yields", "lendShares", "debtShares",
            "lenders", "borrowers",
        )  # fmt: skip
        asset = text(stated["asset"], "asset")
        pool = {
            name: number(value, name) if name in ("lenders", "borrowers") else decimal(value, f"{name} of {asset}")
            for name, value in stated.items()
            if name != "asset"
        }
        check_pool(asset, pool, header, totals, markets)
        pools[asset] = pool
    for asset, hole in object_of(header.get("poolHoles", {}), "poolHoles").items():
        decimal(hole, f"hole of {asset}")
        if asset not in pools:
            raise NotVerified(f"{asset} has a hole of {hole}, but no pool")
    if [pool["asset"] for pool in header["pools"]] != sorted(pools):
        raise NotVerified("the pools name an asset twice or out of order")
    homes = {asset + share for asset in pools for share in ("", ".lend", ".debt")}
    for name, atoms in system.items():
        asset, _, kind = name.rpartition(".")
        if signed(atoms, name) and kind in POOL_ACCOUNTS and asset not in homes:
            raise NotVerified(f"{name} is not zero, but {asset} has no pool")
    return pools


def check_pool(asset: str, pool: Json, header: Json, totals: dict[str, int], markets: dict[str, Json]) -> None:
    """lent + fees = borrowed + idle + staked, as the ledger has them; Σ claims ≤ lent and Σ debts ≥ borrowed.

    What users claim of the liquidity fund, or owe it, is what the fund lends to the pool and owes it.
    """
    if pool["lent"] + pool["fees"] != pool["borrowed"] + pool["idle"] + pool["staked"]:
        raise NotVerified(
            f"{asset}: {pool['lent']} lent and {pool['fees']} of fees are not {pool['borrowed']} borrowed,"
            f" {pool['idle']} idle and {pool['staked']} staked"
        )
    for account, atoms in (
        ("pool_lent", -pool["lent"]),
        ("pool_fees", -pool["fees"]),
        ("pool_borrowed", pool["borrowed"]),
        ("staked", pool["staked"]),
        ("pool_yield", -pool["yields"]),
    ):
        booked = signed(header["system"].get(f"{asset}.{account}", "0"), account)
        if booked != atoms:
            raise NotVerified(f"{asset}: the pool states {atoms} for {account}, the ledger {booked}")
    if max(pool["lenders"], pool["borrowers"]) > header["accounts"]:
        raise NotVerified(f"{asset}: more lend or borrow than there are accounts")
    if not all(f"{asset}.{column}" in totals for column in POOL_COLUMNS):
        raise NotVerified(f"{asset} has a pool, but the leaves do not show what is lent and borrowed")
    claims, debts, uncollected = (totals[f"{asset}.{column}"] for column in POOL_COLUMNS)
    lenders, borrowers, own_shares = pool["lenders"], pool["borrowers"], 0
    lines = {name: line for name, line in markets.items() if line["quote"] == asset}
    for share, of_users in (
        ("lend", -sum(line["claimLend"] for line in lines.values())),
        ("debt", sum(line["claimDebt"] for line in lines.values())),
    ):
        fund = signed(header["system"].get(f"{asset}.{share}.liquidity_fund", "0"), "liquidity_fund")
        if fund != of_users:
            raise NotVerified(f"{asset}.{share}: the liquidity fund has {fund}, its users claim {of_users} shares")
    for account, atoms in header["system"].items():
        home, _, kind = account.rpartition(".")
        if home == f"{asset}.lend" and kind not in ("pool_shares", "liquidity_fund"):
            own_shares -= signed(atoms, account)  # what the insurance fund was left with of a loan
    claims += sum(totals[f"{name}.claim_plus"] for name in lines)
    claims += max(0, own_shares) * pool["lent"] // max(1, pool["lendShares"])
    debts += sum(totals[f"{name}.claim_minus"] for name in lines)
    lenders += sum(line["winners"] for line in lines.values()) + (own_shares > 0)
    borrowers += sum(line["losers"] for line in lines.values())
    if not 0 <= pool["lent"] - claims < max(1, lenders):
        raise NotVerified(f"{asset}: {lenders} lenders claim {claims}, the pool owes them {pool['lent']}")
    if not 0 <= debts - pool["borrowed"] < max(1, borrowers):
        raise NotVerified(f"{asset}: {borrowers} borrowers owe {debts}, the pool is owed {pool['borrowed']}")
    if uncollected > pool["yields"]:
        raise NotVerified(f"{asset}: {uncollected} of yields are uncollected, the ledger has {pool['yields']}")


def check_own_loans(leaf: Json, columns: list[str], pools: dict[str, Json]) -> None:
    """What you lend and owe follows from your shares: a claim rounded down, a debt rounded up."""
    amount_of = dict(zip(columns, leaf["amounts"], strict=True))
    for name, column, total, all_shares in (
        ("lendShares", "lent", "lent", "lendShares"),
        ("debtShares", "borrowed", "borrowed", "debtShares"),
    ):
        shares = leaf["detailLines"].get(name, {})
        if not isinstance(shares, dict) or not set(shares) <= set(pools):
            raise NotVerified(f"your {name} are of an asset that has no pool")
        for asset, pool in pools.items():
            own = decimal(shares.get(asset, "0"), name)
            if own > pool[all_shares]:
                raise NotVerified(f"you have {own} {name} of {asset}, all together {pool[all_shares]}")
            product, whole = own * pool[total], max(1, pool[all_shares])
            worth = product // whole if column == "lent" else -(-product // whole)
            if amount_of[f"{asset}.{column}"] != worth:
                raise NotVerified(
                    f"your {own} {name} of {asset} are worth {worth}, your leaf says {amount_of[f'{asset}.{column}']}"
                )


def check_conservation(
    header: Json,
    totals: dict[str, int],
    pools: dict[str, Json],
    markets: dict[str, Json],
    liquidity: dict[str, Json],
) -> tuple[dict[str, int], dict[str, int]]:
    """Liabilities = trial balance, type by type; users + system = 0 per asset. Returns what is owed and lent on."""
    residue: dict[str, int] = {}
    owed: dict[str, int] = {}
    loans = {asset: pool["borrowed"] for asset, pool in pools.items()}
    shown: list[str] = []
    if not isinstance(header["trialBalance"], list):
        raise NotVerified("the trial balance is missing")
    for line in header["trialBalance"]:
        fields(line, "trial balance line", "accountType", "asset", "columns", "atoms")
        asset, kind, atoms = (
            text(line["asset"], "asset"),
            text(line["accountType"], "type"),
            signed(line["atoms"], "atoms"),
        )
        if not all(text(name, "column") in totals for name in array(line["columns"], "columns")):
            raise NotVerified("the trial balance names a column that does not exist")
        if any(name.split(".")[0] != asset for name in line["columns"]):
            raise NotVerified(f"the trial balance shows a column of another asset under {asset}")
        total = sum(totals[name] for name in line["columns"])
        if total != abs(atoms):
            raise NotVerified(f"{asset} {kind}: leaves sum to {total}, the trial balance to {abs(atoms)}")
        if atoms > 0:
            raise NotVerified(f"{asset} {kind} is on the wrong side of the trial balance: {atoms}")
        residue[asset] = residue.get(asset, 0) + atoms
        owed[asset] = owed.get(asset, 0) - atoms
        shown += line["columns"]
    for asset, pool in pools.items():
        residue[f"{asset}.lend"] = -pool["lendShares"] - exchange_shares(header, f"{asset}.lend")
        residue[f"{asset}.debt"] = pool["debtShares"] - exchange_shares(header, f"{asset}.debt")
        owed[asset] = owed.get(asset, 0) + pool["lent"] + pool["yields"]
        shown += [f"{asset}.{column}" for column in POOL_COLUMNS]

    for name, line in markets.items():
        residue[name] = totals[f"{name}.short"] - totals[f"{name}.long"]
        residue[f"{name}.cost"] = line["cost"]
        residue[f"{name}.claim"], residue[f"{name}.claim-debt"] = -line["claimLend"], line["claimDebt"]
        shown += [f"{name}.{column}" for column in MARKET_COLUMNS]
    for name, line in liquidity.items():
        # Coins in liquidity pools are owed, to providers and for positions; what positions owe is no coin.
        for asset, side in ((name, "external"), (line["native"], "native")):
            owed[asset] = owed.get(asset, 0) + line[f"{side}Balance"] + line[f"{side}Custody"]
        for column, (kept, asset, sign) in LIQUIDITY_COLUMNS.items():
            residue[f"{name}.{asset}"] = sign * line[kept]
            shown.append(f"{name}.{column}")
    for asset, plus, minus in check_unsettled(header, totals):
        residue[asset] = residue.get(asset, 0) - plus + minus
        owed[asset], loans[asset] = owed.get(asset, 0) + plus, loans.get(asset, 0) + minus
        shown += [f"{asset}.{column}" for column in UNSETTLED_COLUMNS]

    in_ledger = [name for name in totals if "." in name]
    if sorted(shown) != sorted(in_ledger):
        raise NotVerified("the trial balance does not show every column of the ledger exactly once")
    for name, atoms in header["system"].items():
        asset = name.rpartition(".")[0]
        residue[asset] = residue.get(asset, 0) + signed(atoms, name)
    for asset, rest in residue.items():
        if rest:
            raise NotVerified(f"{asset} is out of balance: users and system accounts sum to {rest}")
    return owed, loans


def exchange_shares(header: Json, share: str) -> int:
    """Shares of a pool that are the liquidity fund's or the insurance fund's, debits positive."""
    entries = ((name.rpartition("."), atoms) for name, atoms in header["system"].items())
    return sum(signed(atoms, share) for (home, _, kind), atoms in entries if home == share and kind != "pool_shares")


def check_unsettled(header: Json, totals: dict[str, int]) -> list[tuple[str, int, int]]:
    """What users wait for and what they owe is zero with what the exchange itself waits for. (asset, plus, minus)."""
    found = []
    waiting = object_of(header.get("unsettled", {}), "unsettled")
    for asset, stated in waiting.items():
        if not all(f"{asset}.{column}" in totals for column in UNSETTLED_COLUMNS):
            raise NotVerified(f"unsettled {asset} is stated, but the leaves do not show it")
        plus, minus, recovery = (totals[f"{asset}.{column}"] for column in UNSETTLED_COLUMNS)
        uncollected = recovery + totals.get(f"{asset}.uncollected_yield", 0)
        if uncollected > -signed(header["system"].get(f"{asset}.pool_yield", "0"), "pool_yield"):
            raise NotVerified(f"{asset}: {uncollected} of yields and recoveries are uncollected, the ledger has less")
        if minus - plus != signed(stated, f"unsettled {asset}"):
            raise NotVerified(f"{asset}: users wait for {plus} and owe {minus}, the ledger says {stated}")
        own = sum(
            signed(header["system"].get(f"{asset}.{kind}", "0"), kind)
            for kind in ("insurance_unsettled", "rounding_unsettled")
        )
        if minus - plus + own:
            raise NotVerified(f"{asset}: unsettled equity sums to {minus - plus + own}, not to zero")
        found.append((asset, plus, minus))
    for name, atoms in header["system"].items():
        if name.rpartition(".")[2] in ("insurance_unsettled", "rounding_unsettled"):
            if signed(atoms, name) and name.rpartition(".")[0] not in waiting:
                raise NotVerified(f"{name} is not zero, but nobody's unsettled equity is stated")
    return found


def check_reserves(
    statement_text: str, header: Json, owed: dict[str, int], lent_on: dict[str, int], decimals: dict[str, int]
) -> list[str]:
    """The reserves statement refers to the same instant and its arithmetic is right. Returns lines to print."""
    statement = canonical(statement_text, "reserves")
    fields(
        statement, "reserves statement", "version", "exchange", "epoch", "atUs", "blockHeight", "blockHash", "lines",
        "assets",
    )  # fmt: skip
    for name in ("exchange", "epoch", "atUs", "blockHeight", "blockHash"):
        if type(statement[name]) is not type(header[name]) or statement[name] != header[name]:
            raise NotVerified(f"the reserves are of {name} {statement[name]}, the liabilities of {header[name]}")
    if not isinstance(statement["lines"], list) or not isinstance(statement["assets"], list):
        raise NotVerified("the reserves statement has no lines")

    kinds = {
        "custody": "custody",
        "staked": "staked",
        "in_flight_deposit": "inFlightDeposits",
        "in_flight_withdrawal": "inFlightWithdrawals",
    }
    sums: dict[tuple[str, str], int] = {}
    for line in statement["lines"]:
        fields(line, "reserve line", "asset", "kind", "where", "atoms")
        text(line["where"], "where")
        if text(line["kind"], "kind") not in kinds:
            raise NotVerified(f"a reserve line is of unknown kind {line['kind']}")
        place_of = (text(line["asset"], "asset"), kinds[line["kind"]])
        sums[place_of] = sums.get(place_of, 0) + decimal(line["atoms"], "atoms")
    names = sorted({asset for asset, _ in sums} | set(owed))
    if [entry.get("asset") for entry in statement["assets"] if isinstance(entry, dict)] != names:
        raise NotVerified("the reserves statement does not list every asset once")

    report = []
    for entry in statement["assets"]:
        fields(
            entry, "reserves of an asset", "asset", "liabilities", "custody", "staked", "inFlightDeposits",
            "inFlightWithdrawals", "reserves", "loans", "ratio", "ratioWithLoans",
        )  # fmt: skip
        asset = entry["asset"]
        reserves = 0
        for name in kinds.values():
            if decimal(entry[name], name) != sums.get((asset, name), 0):
                raise NotVerified(f"{asset}: the lines of {name} do not add up to {entry[name]}")
            reserves += sums.get((asset, name), 0)
        liabilities, loans = owed.get(asset, 0), lent_on.get(asset, 0)
        stated = decimal(entry["liabilities"], "liabilities"), decimal(entry["reserves"], "reserves")
        if stated != (liabilities, reserves):
            raise NotVerified(f"{asset}: liabilities of {liabilities} and reserves of {reserves} are stated otherwise")
        if decimal(entry["loans"], "loans") != loans:
            raise NotVerified(f"{asset}: loans of {loans} are stated as {entry['loans']}")
        for name, covering in (("ratio", reserves), ("ratioWithLoans", reserves + loans)):
            ratio = str(covering * RATIO_SCALE // liabilities) if liabilities else None
            if entry[name] != ratio:
                raise NotVerified(f"{asset}: the {name} is {ratio}, stated is {entry[name]}")
        report.append(reserve_line(entry, loans, decimals))
    return report


def reserve_line(entry: Json, loans: int, decimals: dict[str, int]) -> str:
    """One asset for people. What was lent on to other users is not there to be paid out: it is said apart."""
    asset, reserves, liabilities = entry["asset"], int(entry["reserves"]), int(entry["liabilities"])
    held, due = quantity(reserves, f"{asset}.", decimals), quantity(liabilities, f"{asset}.", decimals)
    staked = int(entry["staked"])
    held += f" (of which {quantity(staked, f'{asset}.', decimals)} staked)" if staked else ""
    line = f"  {asset:<8} reserves {held}, owed {due}: "
    line += "nothing is owed" if entry["ratio"] is None else percent(int(entry["ratio"]))
    if loans:
        line += f"; {quantity(loans, f'{asset}.', decimals)} lent on to borrowers"
        line += "" if entry["ratio"] is None else f", with it {percent(int(entry['ratioWithLoans']))}"
    return line + ("   SHORTFALL" if reserves + loans < liabilities else "")


def decimals_of(parameters_text: str) -> dict[str, int]:
    """How many decimals each asset has, as far as the parameters say that the header commits to."""
    parameters = canonical(parameters_text, "parameters")
    found: dict[str, int] = {}
    for asset, line in parameters.items() if isinstance(parameters, dict) else ():
        places = line.get("decimals") if isinstance(line, dict) else None
        if type(places) is int and 0 <= places <= 36:
            found[asset] = places
    return found


def quantity(amount: int, column: str, decimals: dict[str, int]) -> str:
    """An amount for people: `12.5 SOL` where the proof says how many decimals SOL has, else whole `atoms`."""
    if column in (COUNT_COLUMN, NEGATIVE_COLUMN):
        return str(amount)
    asset, dot, kind = column.partition(".")
    if not dot:
        return f"{amount} quote atoms"
    if column in decimals:
        asset = column
    elif f"{asset}.{kind.split('_')[0]}" in decimals:
        asset = f"{asset}.{kind.split('_')[0]}"
    if asset not in decimals:
        return f"{amount} atoms"
    whole, fraction = divmod(amount, 10 ** decimals[asset])
    digits = str(fraction).zfill(decimals[asset]).rstrip("0") if fraction else ""
    unit = "" if "." in asset else f" {asset}"
    return f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"


def market_decimals(markets: dict[str, Json], decimals: dict[str, int]) -> dict[str, int]:
    """How many decimals a market's columns have: positions those of its base asset, all else those of its quote."""
    found = {}
    for name, line in markets.items():
        for kind in ("long", "short", "cost", "pnl", "claim"):
            found[f"{name}.{kind}"] = decimals[line["base" if kind in ("long", "short") else "quote"]]
    return found


def liquidity_decimals(pools: dict[str, Json], decimals: dict[str, int]) -> dict[str, int]:
    """How many decimals a liquidity pool's columns have: units are counted as the native asset is."""
    found = {}
    for name, line in pools.items():
        for column in LIQUIDITY_COLUMNS:
            counted = name if "external" in column else line["native"]
            if counted in decimals:
                found[f"{name}.{column}"] = decimals[counted]
    return found


def percent(ratio: int) -> str:
    """A ratio at scale 1e9 in percent, rounded down: 99.999 % must not read as 100 %."""
    hundredths = ratio // (RATIO_SCALE // 10**4)
    return f"{hundredths // 100}.{hundredths % 100:02d} %"


def snapshot_lines(header: Json, prices: Json) -> list[str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(header["atUs"] // 10**6))
    limit = header["priceMaxAgeUs"] // 10**6
    lines = [f"  - The snapshot is of {at}; {len(prices)} prices, none older than {limit} s."]
    if header["hour"] is None:
        lines.append("  - This epoch was built on demand, not on the hour.")
    else:
        late = (header["atUs"] - header["hour"] * HOUR_US) / 1e6
        lines.append(f"  - It was taken {late:.1f} s after the hour.")
    return [*lines, hours_line(header)]


def hours_line(row: Json) -> str:
    if row["firstHour"] is None:
        return "  - The log has no hourly epoch yet."
    hours = row["lastHour"] - row["firstHour"] + 1
    return f"  - Of {hours} hours since the first epoch on the hour, {row['missedHours']} have no epoch."


def pool_check_lines(pools: dict[str, Json]) -> list[str]:
    if not pools:
        return []
    return [
        "  - In every money market what is lent and kept as fees is what is borrowed, idle and staked; users' claims",
        "    are at most what is lent, their debts at least what is borrowed, by less than one atom per holder.",
        "    What you lend and owe follows from your shares.",
    ]


def pool_lines(pools: dict[str, Json], decimals: dict[str, int]) -> list[str]:
    if not pools:
        return []
    lines = ["", "Money markets, lent + fees = borrowed + idle + staked:"]
    for asset, pool in pools.items():
        parts = [
            f"{name} {quantity(pool[name], f'{asset}.', decimals)}"
            for name in ("lent", "fees", "borrowed", "idle", "staked")
        ]
        lines.append(f"  {asset:<8} {', '.join(parts)}; {pool['lenders']} lend, {pool['borrowers']} borrow")
    return lines


def market_check_lines(markets: dict[str, Json]) -> list[str]:
    if not markets:
        return []
    return [
        "  - In every perpetual market longs are shorts; costs and unrealized PnL of all users together are zero, but",
        "    for what the exchange's rounding account holds. What users wait for after settlements, others owe.",
        "    What the liquidity fund lends and owes is its users' claims. Your PnL is quantity × mark + cost.",
    ]


def market_lines(
    header: Json, markets: dict[str, Json], totals: dict[str, int], decimals: dict[str, int]
) -> list[str]:
    lines = ["", "Perpetual markets, long = short:"] if markets else []
    for name, line in markets.items():
        side = quantity(totals[f"{name}.long"], f"{name}.long", decimals)
        mark = quantity(line["mark"], f"{name}.cost", decimals)
        lot = quantity(line["lot"], f"{name}.long", decimals)
        lines.append(f"  {name:<16} {side} {line['base']} each side, {lot} {line['base']} = {mark} {line['quote']}")
    for asset, hole in header.get("poolHoles", {}).items():
        lines.append(f"  Lenders of {asset} still lack {hole} quote atoms of a debt written down.")
    return lines


def liquidity_check_lines(pools: dict[str, Json]) -> list[str]:
    if not pools:
        return []
    return [
        "  - In every liquidity pool the units of all providers, what is kept for positions and what these owe are the",
        "    pool's; its coins, which are owed to them, are its balance and what it keeps. Your positions add up.",
    ]


def liquidity_lines(pools: dict[str, Json], decimals: dict[str, int]) -> list[str]:
    lines = ["", "Liquidity pools, balance + custody = coins:"] if pools else []
    for name, line in pools.items():
        for asset, side in ((line["native"], "native"), (name, "external")):
            balance, custody, owed, fund = (
                quantity(line[f"{side}{part}"], f"{asset}.", decimals)
                for part in ("Balance", "Custody", "Owed", "Fund")
            )
            heading = f"{line['native']}:{name}" if side == "native" else ""
            lines.append(f"  {heading:<16} balance {balance}, custody {custody}; owed by positions {owed}, fund {fund}")
    return lines


def own_share_lines(leaf: Json, columns: list[str], pools: dict[str, Json], decimals: dict[str, int]) -> list[str]:
    """What your units are of each pool, of depths that count what positions owe; a withdrawal rounds otherwise."""
    lines = []
    amount_of = dict(zip(columns, leaf["amounts"], strict=True))
    for name, line in pools.items():
        units = amount_of[f"{name}.amm_units"]
        if units:
            parts = [
                quantity((line[f"{side}Balance"] + line[f"{side}Owed"]) * units // line["units"], f"{asset}.", decimals)
                for asset, side in ((line["native"], "native"), (name, "external"))
            ]
            part = percent(units * RATIO_SCALE // line["units"])
            lines.append(f"  Your units are {part} of {line['native']}:{name}, of its depths {' and '.join(parts)}.")
    return lines


def negative_lines(header: Json, totals: dict[str, int]) -> list[str]:
    if NEGATIVE_COLUMN not in totals:
        return []
    return [
        f"  {totals[NEGATIVE_COLUMN]} accounts are below zero by {totals['net_equity_minus']} quote atoms together;"
        f" insurance covers {header['insurance']}, uncovered: {header['hole']}."
    ]


# ------------------------------------------------------------------------------------------------------ the public log


def check_log_part(
    part: Json, header: Json, key: Key | None, known: Sequence[tuple[str, str]], witnesses: Sequence[Key]
) -> tuple[list[str], str]:
    """The header is in the log, at the place of its epoch, under a signed checkpoint that agrees with known ones."""
    fields(part, "log", "index", "size", "path", "checkpoint", "publicKey", "consistency")
    index, size = number(part["index"], "log index"), number(part["size"], "log size")
    if index != header["epoch"]:
        raise NotVerified(f"the header is of epoch {header['epoch']}, the log proof of row {index}")
    checkpoint, lines = check_checkpoint(part, key, witnesses)
    if checkpoint["origin"] != f"{header['exchange']}/proof-of-reserves":
        raise NotVerified(f"the log {checkpoint['origin']} is not that of {header['exchange']}")
    if checkpoint["size"] != size:
        raise NotVerified(f"the checkpoint is of {checkpoint['size']} rows, the log proof of {size}")

    leaf = sha256(b"\x00" + row_hash(header["text"]))
    path = [hexadecimal(step, 32, "log path") for step in array(part["path"], "log path")]
    if not included(leaf, index, size, path, checkpoint["root"]):
        raise NotVerified("the epoch's header is not in the log under this checkpoint")
    lines = [f"  - The header is row {index} of the log of {size} rows.", *lines]
    newest = part["checkpoint"]

    connected = connected_roots(part, checkpoint)
    for where, other_text in known:
        other = read_checkpoint(other_text)
        require_signature(other, checkpoint["key"])
        if other["origin"] != checkpoint["origin"]:
            raise NotVerified(f"the checkpoint in {where} is of another log: {other['origin']}")
        if other["size"] not in connected:
            raise NotVerified(
                f"the proof does not connect its log of {size} rows with the {other['size']} rows of the checkpoint"
                f" in {where}: ask for it again with a consistency proof for {other['size']} rows"
                f" (satchel por prove --known {other['size']})"
            )
        if other["root"] != connected[other["size"]]:
            raise NotVerified(
                f"FORK: the log of {size} rows and the signed checkpoint of {other['size']} rows in {where} are not"
                " of one history; keep both, they are evidence"
            )
        lines.append(
            f"  - It agrees with the checkpoint of {other['size']} rows in {where}: history was not rewritten."
        )
        if other["size"] > size:
            newest = other_text
    return lines, newest


def verify_log(
    document: Json, key: Key | None, known: Sequence[tuple[str, str]], witnesses: Sequence[Key]
) -> tuple[list[str], str]:
    """Check a whole log: the chain of rows, a row for every hour, the signed root over all of them."""
    fields(document, "the log", "format", "version", "rows", "checkpoint", "publicKey")
    if type(document["version"]) is not int or document["version"] != 1:
        raise NotVerified(f"log version {document['version']} is not known to this verifier")
    rows = [read_row(text(row, "row")) for row in array(document["rows"], "rows")]
    before = None
    for number_of, row in enumerate(rows):
        check_next_row(row, before, number_of)
        before = row

    checkpoint, lines = check_checkpoint(document, key, witnesses)
    leaves = [sha256(b"\x00" + row_hash(row["text"])) for row in rows]
    if not rows or checkpoint["origin"] != f"{rows[0]['exchange']}/proof-of-reserves":
        raise NotVerified("the checkpoint is of another log")
    if checkpoint["size"] != len(rows) or checkpoint["root"] != tree_root(leaves):
        raise NotVerified(f"the checkpoint of {checkpoint['size']} rows is not that of the {len(rows)} rows here")

    newest = document["checkpoint"]
    for where, other_text in known:
        other = read_checkpoint(other_text)
        require_signature(other, checkpoint["key"])
        if other["origin"] != checkpoint["origin"] or other["size"] > len(rows):
            raise NotVerified(
                f"the checkpoint of {other['size']} rows in {where} is not one of this log of {len(rows)} rows"
            )
        if other["root"] != tree_root(leaves[: other["size"]]):
            raise NotVerified(
                f"FORK: the log no longer starts with the {other['size']} rows of the checkpoint in {where}"
            )
        lines.append(f"  - It starts with the {other['size']} rows of the checkpoint in {where}.")

    missed = [row for row in rows if row["kind"] == "missed"]
    report = [
        f"VERIFIED: the log of {rows[0]['exchange']}, {len(rows)} rows",
        "  - Each row names the hash of the one before it, and no hour is left out.",
        *lines,
        hours_line(rows[-1]),
        *[f"      missed: hour {row['hour']} ({row['reason']})" for row in missed],
    ]
    return report, newest


def check_next_row(row: Json, before: Json, number_of: int) -> None:
    if row["epoch"] != number_of:
        raise NotVerified(f"row {number_of} of the log says that it is epoch {row['epoch']}")
    if row["previous"] != (row_hash(before["text"]).hex() if before else "00" * 32):
        raise NotVerified(f"row {number_of} does not follow the row before it")
    first, last, missed, accounts = None, None, 0, 0
    if before:
        first, last = before["firstHour"], before["lastHour"]
        missed, accounts = before["missedHours"], before["accounts"]
        if row["exchange"] != before["exchange"]:
            raise NotVerified(f"row {number_of} is of another exchange")
        if row["atUs"] < before["atUs"] or row["blockHeight"] < before["blockHeight"]:
            raise NotVerified(f"row {number_of} goes back in time")
    if row["hour"] is not None:
        if last is not None and row["hour"] != last + 1:
            raise NotVerified(f"row {number_of} is of hour {row['hour']}, after hour {last}: hours are left out")
        first = row["hour"] if first is None else first
        last = row["hour"]
    if row["kind"] == "missed":
        missed += 1
    else:
        accounts += row["opened"] - row["closed"]
    if (row["firstHour"], row["lastHour"], row["missedHours"], row["accounts"]) != (first, last, missed, accounts):
        raise NotVerified(f"row {number_of} does not count hours or accounts on from the row before it")


def check_checkpoint(part: Json, key: Key | None, witnesses: Sequence[Key]) -> tuple[Json, list[str]]:
    """The checkpoint that came with the document, its signature and cosignatures. Returns it and lines to print."""
    checkpoint = read_checkpoint(text(part["checkpoint"], "checkpoint"))
    own_key = base64_bytes(part["publicKey"], "publicKey")
    if len(own_key) != 32:
        raise NotVerified("publicKey is not an Ed25519 key")
    if key is not None:
        name, trusted = key
        if trusted != own_key or name not in ("", checkpoint["origin"]):
            raise NotVerified("the proof names another key than the one you trust")
    checkpoint["key"] = own_key
    require_signature(checkpoint, own_key)
    pinned = "the key you gave" if key else "the key that came with it"
    lines = [f"  - The checkpoint of {checkpoint['size']} rows is signed by {pinned} ({part['publicKey']})."]

    for name, witness in witnesses:
        times = [
            int.from_bytes(blob[4:12], "big")
            for signer, blob in checkpoint["signatures"]
            if signer == name and blob[:4] == key_id(name, 0x04, witness) and len(blob) == 76
            and ed25519_verify(witness, cosigned(checkpoint["body"], blob[4:12]), blob[12:])
        ]  # fmt: skip
        if not times:
            raise NotVerified(f"the witness {name} did not cosign the checkpoint")
        lines.append(f"  - The witness {name} cosigned it.")
    return checkpoint, lines


def read_checkpoint(checkpoint_text: str) -> Json:
    """Parse a C2SP checkpoint: origin, size, base64 root, blank line, signature lines."""
    body, blank, signature_text = checkpoint_text.rpartition("\n\n")
    body += "\n"
    lines = body.split("\n")
    if not blank or len(lines) < 4 or not signature_text.endswith("\n"):
        raise NotVerified("the checkpoint is not a signed note")
    if any(ord(character) < 32 and character != "\n" for character in checkpoint_text) or "" in lines[:-1]:
        raise NotVerified("the checkpoint has control characters or empty lines")
    origin, size, root = lines[:3]
    if not re.fullmatch("0|[1-9][0-9]{0,15}", size):
        raise NotVerified("the checkpoint's size is not a number")
    signatures = []
    for line in signature_text[:-1].split("\n"):
        dash, name, blob = [*line.split(" "), "", ""][:3]
        if dash != "\u2014" or line.count(" ") != 2 or not name or "+" in name:
            raise NotVerified("a signature line of the checkpoint is malformed")
        signatures.append((name, base64_bytes(blob, "signature")))
    root_bytes = base64_bytes(root, "root")
    if len(root_bytes) != 32:
        raise NotVerified("the checkpoint's root is not 32 bytes")
    return {"origin": origin, "size": int(size), "root": root_bytes, "body": body, "signatures": signatures}


def require_signature(checkpoint: Json, key: bytes) -> None:
    wanted = key_id(checkpoint["origin"], 0x01, key)
    for name, blob in checkpoint["signatures"]:
        if name == checkpoint["origin"] and blob[:4] == wanted:
            if len(blob) == 68 and ed25519_verify(key, checkpoint["body"].encode(), blob[4:]):
                return
            raise NotVerified(f"the signature on the checkpoint of {checkpoint['size']} rows is wrong")
    raise NotVerified(f"the checkpoint of {checkpoint['size']} rows is not signed by this key")


def connected_roots(part: Json, checkpoint: Json) -> dict[int, bytes]:
    """The roots of other sizes that consistency proofs tie to the checkpoint, by size; its own included."""
    own_size, own_root = checkpoint["size"], checkpoint["root"]
    connected = {0: sha256(b""), own_size: own_root}
    for proof in array(part["consistency"], "consistency"):
        fields(proof, "consistency proof", "from", "to", "root", "path")
        old, new = number(proof["from"], "from"), number(proof["to"], "to")
        other_root = hexadecimal(proof["root"], 32, "root")
        steps = [hexadecimal(step, 32, "consistency path") for step in array(proof["path"], "consistency path")]
        if own_size not in (old, new) or old == new:
            raise NotVerified(
                f"the consistency proof from {old} to {new} rows is not about this log of {own_size} rows"
            )
        old_root, new_root = (own_root, other_root) if own_size == old else (other_root, own_root)
        if consistency_roots(old, new, steps, old_root) != (old_root, new_root):
            raise NotVerified(f"the consistency proof from {old} to {new} rows does not hold")
        connected[new if own_size == old else old] = other_root
    return connected


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """RFC 9162 §2.1.3.2."""
    if index >= size:
        return False
    node, last = leaf, size - 1
    for step in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = sha256(b"\x01" + step + node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\x01" + node + step)
        index, last = index >> 1, last >> 1
    return last == 0 and node == root


def consistency_roots(old: int, new: int, path: list[bytes], old_root: bytes) -> tuple[bytes, bytes] | None:
    """RFC 9162 §2.1.4.2: the two roots that a consistency proof leads to, or None if it has the wrong length."""
    if not 0 < old < new:
        return None
    path = ([old_root] if old & (old - 1) == 0 else []) + path
    if not path:
        return None
    index, last = old - 1, new - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    before = after = path[0]
    for step in path[1:]:
        if last == 0:
            return None
        if index & 1 or index == last:
            before, after = sha256(b"\x01" + step + before), sha256(b"\x01" + step + after)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            after = sha256(b"\x01" + after + step)
        index, last = index >> 1, last >> 1
    return (before, after) if last == 0 else None


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, over leaf hashes."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:]))


def row_hash(row_text: str) -> bytes:
    return sha256(tag(0x21) + row_text.encode())


def key_id(name: str, kind: int, key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + key)[:4]


def cosigned(body: str, timestamp: bytes) -> bytes:
    return f"cosignature/v1\ntime {int.from_bytes(timestamp, 'big')}\n{body}".encode()


def decode_key(key_text: str, kind: int) -> Key:
    """A key as base64 of 32 bytes, or as name+id+base64(type ‖ key). Returns (name or "", 32 bytes)."""
    if kind == 0x01 and len(key_text) == 44:
        return "", base64_bytes(key_text, "key")
    parts = key_text.split("+", 2)
    if len(parts) == 3:
        name, identifier, encoded = parts
        blob = base64_bytes(encoded, "key")
        if len(blob) == 33 and blob[0] == kind and key_id(name, kind, blob[1:]).hex() == identifier:
            return name, blob[1:]
    raise NotVerified(f"{key_text} is not a public key for this use: base64 of 32 bytes, or name+id+key")


# --------------------------------------------------------------------------------------------- strict reading of values


def no_duplicates(pairs: list[tuple[str, Json]]) -> Json:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a name appears twice in one JSON object: {names}")
    return dict(pairs)


def no_fractions(spelled: str) -> Json:
    raise ValueError(f"{spelled} is not a whole number")


def fields(value: Json, what: str, *names: str) -> None:
    if not isinstance(value, dict) or set(value) != set(names):
        raise NotVerified(f"{what} must have exactly the fields {', '.join(names)}")


def text(value: Json, what: str) -> str:
    if not isinstance(value, str):
        raise NotVerified(f"{what} is not a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotVerified(f"{what} is not valid Unicode") from None
    return value


def array(value: Json, what: str) -> list[Json]:
    if not isinstance(value, list):
        raise NotVerified(f"{what} is not a list")
    return value


def object_of(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise NotVerified(f"{what} is missing" if what != "system" else "the trial balance is missing")
    return value


def canonical(value: Json, what: str) -> Json:
    """A text that must be canonical JSON: keys sorted, no spaces, ASCII, no fractions. Returns what it says."""
    try:
        require_shallow(text(value, what))
        parsed = json.loads(value, object_pairs_hook=no_duplicates, parse_float=no_fractions)
        again = json.dumps(parsed, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        raise NotVerified(f"{what} is not JSON") from None
    if again != value:
        raise NotVerified(f"{what} is not in canonical form")
    return parsed


def require_shallow(value: str) -> None:
    """Refuse JSON nested deeper than any of ours: the parser would run out of stack before it runs out of patience."""
    depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', value):
        if bracket in "[{":
            depth += 1
            if depth > 16:
                raise ValueError("nested too deeply")
        elif bracket in "]}":
            depth -= 1


def number(value: Json, what: str) -> int:
    if type(value) is not int or not 0 <= value < NUMBER_LIMIT:
        raise NotVerified(f"{what} is not a whole number from 0 up")
    return value


def decimal(value: Json, what: str) -> int:
    """An unsigned 128-bit amount as a decimal string: no sign, no leading zeros."""
    if not isinstance(value, str) or not re.fullmatch("0|[1-9][0-9]{0,38}", value):
        raise NotVerified(f"{what} is not an amount: {value!r}")
    if int(value) >= COLUMN_LIMIT:
        raise NotVerified(f"{what} overflows 128 bits: {value}")
    return int(value)


def signed(value: Json, what: str) -> int:
    negative = isinstance(value, str) and value.startswith("-")
    amount = decimal(value[1:] if negative else value, what)
    if negative and amount == 0:
        raise NotVerified(f"{what} is a negative zero")
    return -amount if negative else amount


def vector(value: Json, columns: list[str], what: str) -> list[int]:
    if not isinstance(value, list) or len(value) != len(columns):
        raise NotVerified(f"the {what} must have one amount for each of the {len(columns)} columns")
    return [decimal(amount, f"{column} of the {what}") for column, amount in zip(columns, value, strict=True)]


def hexadecimal(value: Json, length: int, what: str) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value):
        raise NotVerified(f"{what} is not {length} bytes in lower-case hexadecimal")
    return bytes.fromhex(value)


def base64_bytes(value: Json, what: str) -> bytes:
    try:
        decoded = base64.b64decode(text(value, what), validate=True)
    except ValueError:
        raise NotVerified(f"{what} is not base64") from None
    if base64.b64encode(decoded).decode() != value:
        raise NotVerified(f"{what} is not canonical base64")
    return decoded


# --------------------------------------------------------------------------------------------------------------- bytes


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def tag(kind: int) -> bytes:
    """16 bytes that say what is being hashed, so that nothing can be passed off as something else."""
    return bytes([kind]) + b"satchel/por/v1\n"


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def place(kind: int, epoch: int, level: int, index: int) -> bytes:
    """Every leaf and node says where it stands."""
    return tag(kind) + u64(epoch) + bytes([level]) + u64(index)


def packed(amounts: list[int]) -> bytes:
    """Columns as 16-byte big-endian unsigned integers."""
    return b"".join(amount.to_bytes(16, "big") for amount in amounts)


# ------------------------------------------------------------------------ Ed25519 (RFC 8032 §5.1.7), verification only

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def ed25519_verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """True if `signature` (64 bytes) by `key` (32 bytes) covers `message`: [S]B = R + [k]A."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, s = decompress(key), int.from_bytes(signature[32:], "little")
    if a is None or s >= Q:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % Q
    x, y, z, t = a
    minus_a = (-x % P, y, z, -t % P)
    return compress(add(multiply(s, BASE), multiply(k, minus_a))) == signature[:32]


def add(one: Point, two: Point) -> Point:
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = two
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar: int, point: Point) -> Point:
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def decompress(encoded: bytes) -> Point | None:
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if x * x % P != squared:
        x = x * ROOT_OF_MINUS_ONE % P
    if x * x % P != squared or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def compress(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


if __name__ == "__main__":
    sys.exit(main())
