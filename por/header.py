"""The epoch header: all that an epoch commits to, its one text, and what must balance in it.   [R-5, R-6, R-7, R-12]"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ledger.amounts import mul_div_down
from por.canonical import (
    COLUMN_LIMIT,
    TAG_CODE,
    TAG_HEADER,
    TAG_PARAMETERS,
    TAG_PRICES,
    TAG_RESERVES,
    VERSION,
    ZERO_HASH,
    BuildRefused,
    canonical_json,
    text_hash,
)
from por.image import HOUR_US, Image, PoolLine, TrialLine
from por.tree import SumTree, Vector

# Counted by the builder itself: one per account, and one per account whose net equity is below zero.  
COUNT_COLUMN = "accounts"
NEGATIVE_COLUMN = "negative_accounts"
NET_EQUITY_MINUS = "net_equity_minus"
# Columns that an asset's pool shows. Every other quantity is owed to users: its trial balance is on the credit side.
POOL_COLUMNS = ("lent", "borrowed", "uncollected_yield")
# Accounts that a money market has, as `system` names them: none of them without its pool's line.
POOL_ACCOUNTS = frozenset({"pool_lent", "pool_borrowed", "pool_fees", "pool_yield", "pool_shares", "staked"})
RATIO_SCALE = 1_000_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What every row of the log says: its number, its place in time, and how many hours went by without an epoch.

    `first_hour` … `last_hour` are the hours that have a row, this one included (None before the first hour).
    """

    exchange: str
    epoch: int
    previous: bytes
    hour: int | None
    first_hour: int | None
    last_hour: int | None
    missed_hours: int
    at_us: int
    block_height: int
    accounts: int

    def text(self) -> str:
        """The canonical JSON that is hashed and published."""
        raise NotImplementedError

    def hash(self) -> bytes:
        """The leaf of the log: SHA-256 over the header's domain tag and its text."""
        return text_hash(TAG_HEADER, self.text())


class Missed(Row, frozen=True, kw_only=True):
    """An hour without an epoch, on the record. Time, block and account count are those of the epoch before.   [R-24]"""

    reason: str

    def text(self) -> str:
        return canonical_json({**_row_fields(self), "kind": "missed", "reason": self.reason})


class Header(Row, frozen=True, kw_only=True):
    """A published epoch.   [R-5]"""

    block_hash: bytes
    journal_root: bytes
    opened: int
    closed: int
    prices_hash: bytes
    price_max_age_us: int
    parameters_hash: bytes
    code_hash: bytes
    reserves_hash: bytes
    columns: list[str]
    group_bits: int
    liabilities_root: bytes
    totals: list[int]
    trial_balance: list[TrialLine]
    system: dict[str, int]
    pools: list[PoolLine]
    insurance_atoms: int

    def text(self) -> str:
        return canonical_json(
            {
                **_row_fields(self),
                "kind": "epoch",
                "blockHash": self.block_hash.hex(),
                "journalRoot": self.journal_root.hex(),
                "opened": self.opened,
                "closed": self.closed,
                "pricesHash": self.prices_hash.hex(),
                "priceMaxAgeUs": self.price_max_age_us,
                "parametersHash": self.parameters_hash.hex(),
                "codeHash": self.code_hash.hex(),
                "reservesHash": self.reserves_hash.hex(),
                "columns": self.columns,
                "groupBits": self.group_bits,
                "liabilitiesRoot": self.liabilities_root.hex(),
                "totals": [str(total) for total in self.totals],
                "trialBalance": [
                    {
                        "accountType": line.account_type,
                        "asset": line.asset,
                        "columns": line.columns,
                        "atoms": str(line.atoms),
                    }
                    for line in self.trial_balance
                ],
                "system": {name: str(atoms) for name, atoms in self.system.items()},
                "pools": [_pool_fields(pool) for pool in self.pools],
                "insurance": str(self.insurance_atoms),
                "hole": str(self.hole_atoms),
            }
        )

    def total(self, column: str) -> int:
        """The sum of one column over all accounts."""
        return self.totals[self.columns.index(column)]

    @property
    def hole_atoms(self) -> int:
        """Deficits of accounts below zero that the insurance fund does not cover, in quote atoms.   [R-7]"""
        if NET_EQUITY_MINUS not in self.columns:
            return 0
        return max(0, self.total(NET_EQUITY_MINUS) - self.insurance_atoms)


def build_header(image: Image, previous: Row | None, columns: list[str], tree: SumTree) -> Header:
    """Commit to the image and its tree, or refuse to if anything in it does not add up."""
    require_continuity(image, previous)
    require_fresh_prices(image)
    require_conservation(image, columns, tree.root.totals)

    first_hour, last_hour, missed = _hours(image.hour, previous)
    return Header(
        exchange=image.exchange,
        epoch=next_epoch(previous),
        previous=previous.hash() if previous else ZERO_HASH,
        hour=image.hour,
        first_hour=first_hour,
        last_hour=last_hour,
        missed_hours=missed,
        at_us=image.at_us,
        block_height=image.block_height,
        accounts=len(image.accounts),
        block_hash=image.block_hash,
        journal_root=image.journal_root,
        opened=image.opened,
        closed=image.closed,
        prices_hash=text_hash(TAG_PRICES, prices_text(image)),
        price_max_age_us=image.price_max_age_us,
        parameters_hash=text_hash(TAG_PARAMETERS, image.parameters),
        code_hash=text_hash(TAG_CODE, image.code_version),
        reserves_hash=text_hash(TAG_RESERVES, reserves_text(image, next_epoch(previous))),
        columns=columns,
        group_bits=tree.group_bits,
        liabilities_root=tree.root.hash,
        totals=list(tree.root.totals),
        trial_balance=image.trial_balance,
        system=image.system,
        pools=image.pools,
        insurance_atoms=image.insurance_atoms,
    )


def missed_row(previous: Row, hour: int, reason: str) -> Missed:
    """The row of an hour that has no epoch.   [R-24]"""
    _require_next_hour(hour, previous)
    first_hour, last_hour, missed = _hours(hour, previous)
    return Missed(
        exchange=previous.exchange,
        epoch=next_epoch(previous),
        previous=previous.hash(),
        hour=hour,
        first_hour=first_hour,
        last_hour=last_hour,
        missed_hours=missed + 1,
        at_us=previous.at_us,
        block_height=previous.block_height,
        accounts=previous.accounts,
        reason=reason,
    )


def hours_to_miss(previous: Row | None, hour: int) -> range:
    """The hours that need a missed row before an epoch of `hour` can be built.   [R-24]"""
    if previous is None or previous.last_hour is None:
        return range(0)
    return range(previous.last_hour + 1, hour)


def next_epoch(previous: Row | None) -> int:
    """Epochs are numbered from 0; the number is also the row's place in the log."""
    return previous.epoch + 1 if previous else 0


def require_continuity(image: Image, previous: Row | None) -> None:
    """The image follows the row before it: same exchange, later block, accounts opened and closed accounted for."""
    if image.hour is not None:
        late_us = image.at_us - image.hour * HOUR_US
        if not 0 <= late_us < HOUR_US:
            raise BuildRefused(
                f"hour {image.hour} cannot be shown by a block at {image.at_us} µs, {late_us} µs after it"
            )
        _require_next_hour(image.hour, previous)

    before = previous.accounts if previous else 0
    if min(image.opened, image.closed) < 0 or before + image.opened - image.closed != len(image.accounts):
        raise BuildRefused(
            f"{before} accounts + {image.opened} opened − {image.closed} closed"
            f" is not the {len(image.accounts)} there are"
        )
    if previous is None:
        return
    if image.exchange != previous.exchange:
        raise BuildRefused(f"the log is of exchange {previous.exchange}, the image of {image.exchange}")
    if image.block_height < previous.block_height or image.at_us < previous.at_us:
        raise BuildRefused(
            f"block {image.block_height} at {image.at_us} µs is before block {previous.block_height}"
            f" at {previous.at_us} µs of epoch {previous.epoch}"
        )


def require_fresh_prices(image: Image) -> None:
    """Every price is known at the snapshot and no older than the limit that the header states."""
    assets = [price.asset for price in image.prices]
    if sorted(set(assets)) != assets:
        raise BuildRefused(f"prices must be in the order of their assets, each once: {assets}")
    for price in image.prices:
        age_us = image.at_us - price.at_us
        if not 0 <= age_us <= image.price_max_age_us:
            raise BuildRefused(
                f"the price of {price.asset} is {age_us} µs old at the snapshot, the limit is {image.price_max_age_us}"
            )
        if price.price <= 0:
            raise BuildRefused(f"the price of {price.asset} is {price.price}")


def require_conservation(image: Image, columns: list[str], totals: Vector) -> None:
    """Liabilities are what the trial balance says, type by type, and every asset sums to zero.   [R-6, A-1]"""
    total = dict(zip(columns, totals, strict=True))
    residues: dict[str, int] = {}
    shown: list[str] = []
    for line in image.trial_balance:
        owed = sum(total[_of_asset(name, line.asset, total)] for name in line.columns)
        if owed != abs(line.atoms):
            raise BuildRefused(
                f"{line.asset} {line.account_type}: the leaves sum to {owed}, the trial balance says {abs(line.atoms)}"
            )
        if line.atoms > 0:
            raise BuildRefused(
                f"{line.asset} {line.account_type} is on the wrong side: {line.atoms} for {line.columns}"
            )
        residues[line.asset] = residues.get(line.asset, 0) + line.atoms
        shown += line.columns
    for pool in image.pools:
        require_pool(pool, total, image.system, len(image.accounts))
        shown += [f"{pool.asset}.{kind}" for kind in POOL_COLUMNS]
        residues[f"{pool.asset}.lend"] = -pool.lend_shares
        residues[f"{pool.asset}.debt"] = pool.debt_shares
    require_every_pool(image)

    ledger_columns = sorted(name for name in columns if is_ledger_column(name))
    if sorted(shown) != ledger_columns:
        raise BuildRefused(f"the trial balance shows columns {sorted(shown)}, the leaves have {ledger_columns}")
    for name, atoms in image.system.items():
        asset = name.rpartition(".")[0]
        residues[asset] = residues.get(asset, 0) + atoms
    for asset, residue in sorted(residues.items()):
        if residue:
            raise BuildRefused(f"{asset} is out of balance: users and system accounts sum to {residue}")
    if not 0 <= image.insurance_atoms < COLUMN_LIMIT:
        raise BuildRefused(f"the insurance fund is {image.insurance_atoms}")


def require_pool(pool: PoolLine, total: dict[str, int], system: dict[str, int], accounts: int) -> None:
    """lent + fees = borrowed + idle + staked with nothing below zero, and the leaves' claims and debts are the pool's.

    Σ claims ≤ lent and Σ debts ≥ borrowed, each by less than one atom per holder; what nobody has shares of, nobody
    claims or owes.   [B-4, B-14, R-6]
    """
    asset = pool.asset
    for kind, atoms in (
        ("pool_lent", -pool.lent),
        ("pool_borrowed", pool.borrowed),
        ("pool_fees", -pool.fees),
        ("pool_yield", -pool.yields),
        ("staked", pool.staked),
    ):
        if system.get(f"{asset}.{kind}", 0) != atoms:
            raise BuildRefused(
                f"the pool of {asset} has {kind} {atoms}, the ledger {system.get(f'{asset}.{kind}', 0)}"
            )
    parts = (pool.lent, pool.borrowed, pool.fees, pool.staked, pool.yields, pool.lend_shares, pool.debt_shares)
    if min(*parts, pool.idle) < 0:
        raise BuildRefused(f"the pool of {asset} is below zero: idle {pool.idle} of {pool}")
    if not (0 <= pool.lenders <= accounts and 0 <= pool.borrowers <= accounts):
        raise BuildRefused(f"the pool of {asset} has {pool.lenders} lenders and {pool.borrowers} borrowers")
    claims, debts, uncollected = (total[_of_asset(f"{asset}.{kind}", asset, total)] for kind in POOL_COLUMNS)
    if not _within_dust(pool.lent - claims, pool.lenders):
        raise BuildRefused(f"{asset}: {pool.lenders} lenders claim {claims}, the pool owes them {pool.lent}")
    if not _within_dust(debts - pool.borrowed, pool.borrowers):
        raise BuildRefused(f"{asset}: {pool.borrowers} borrowers owe {debts}, the pool is owed {pool.borrowed}")
    if uncollected > pool.yields:
        raise BuildRefused(f"{asset}: {uncollected} of yields are uncollected, the pool has {pool.yields}")


def require_every_pool(image: Image) -> None:
    """No account of a money market is outside the pools' lines, and each pool has one.   [R-6]"""
    names = [pool.asset for pool in image.pools]
    if sorted(set(names)) != names:
        raise BuildRefused(f"pools must be in the order of their assets, each once: {names}")
    of_pools = {asset for name in names for asset in (name, f"{name}.lend", f"{name}.debt")}
    for name, atoms in image.system.items():
        asset, _, kind = name.rpartition(".")
        if atoms and kind in POOL_ACCOUNTS and asset not in of_pools:
            raise BuildRefused(f"{name} holds {atoms}, but {asset} has no pool")


def _within_dust(difference: int, holders: int) -> bool:
    """Less than one atom per holder, in the one direction that rounding goes.   [B-4]"""
    return 0 <= difference < max(1, holders)


def is_ledger_column(column: str) -> bool:
    """True for `ASSET.kind`, a quantity in atoms that the ledger holds; a valuation or a count has no dot."""
    return "." in column


def reserves_text(image: Image, epoch: int) -> str:
    """The reserves statement: every line, and per asset the ratio of reserves to liabilities, rounded down.   [R-12]

    A ratio is at scale 1e9 and None where nothing is owed. Assets are never netted: each stands for itself. What users
    owe does not lower what they are owed, and is no reserve: loans of an asset stand beside it, with a ratio of their
    own that counts them in.
    """
    for line in image.reserves:
        if not 0 <= line.atoms < COLUMN_LIMIT:
            raise BuildRefused(f"reserve line {line.where}: {line.atoms} {line.asset}")
    owed: dict[str, int] = {line.asset: 0 for line in image.reserves}
    for trial in image.trial_balance:
        owed[trial.asset] = owed.get(trial.asset, 0) - trial.atoms
    loans: dict[str, int] = {}
    for pool in image.pools:
        owed[pool.asset] = owed.get(pool.asset, 0) + pool.lent + pool.yields
        loans[pool.asset] = pool.borrowed

    return canonical_json(
        {
            "version": VERSION,
            "exchange": image.exchange,
            "epoch": epoch,
            "atUs": image.at_us,
            "blockHeight": image.block_height,
            "blockHash": image.block_hash.hex(),
            "lines": [
                {"asset": line.asset, "kind": line.kind, "where": line.where, "atoms": str(line.atoms)}
                for line in image.reserves
            ],
            "assets": [_asset_summary(image, asset, owed[asset], loans.get(asset, 0)) for asset in sorted(owed)],
        }
    )


def _asset_summary(image: Image, asset: str, liabilities: int, loans: int) -> dict[str, Any]:
    sums = {
        kind: sum(line.atoms for line in image.reserves if line.asset == asset and line.kind == kind)
        for kind in ("custody", "staked", "in_flight_deposit", "in_flight_withdrawal")
    }
    reserves = sum(sums.values())
    return {
        "asset": asset,
        "liabilities": str(liabilities),
        "custody": str(sums["custody"]),
        "staked": str(sums["staked"]),
        "inFlightDeposits": str(sums["in_flight_deposit"]),
        "inFlightWithdrawals": str(sums["in_flight_withdrawal"]),
        "reserves": str(reserves),
        "loans": str(loans),
        "ratio": str(mul_div_down(reserves, RATIO_SCALE, liabilities)) if liabilities else None,
        "ratioWithLoans": str(mul_div_down(reserves + loans, RATIO_SCALE, liabilities)) if liabilities else None,
    }


def prices_text(image: Image) -> str:
    """The price set as canonical JSON, one entry per asset.   [R-5]"""
    return canonical_json(
        [{"asset": price.asset, "price": str(price.price), "atUs": price.at_us} for price in image.prices]
    )


def row_from_text(text: str) -> Header | Missed:
    """Read a published row back; its text is reproduced exactly or the row is refused."""
    data = json.loads(text)
    common: dict[str, Any] = {
        "exchange": data["exchange"],
        "epoch": data["epoch"],
        "previous": bytes.fromhex(data["previous"]),
        "hour": data["hour"],
        "first_hour": data["firstHour"],
        "last_hour": data["lastHour"],
        "missed_hours": data["missedHours"],
        "at_us": data["atUs"],
        "block_height": data["blockHeight"],
        "accounts": data["accounts"],
    }
    row: Header | Missed
    if data["kind"] == "missed":
        row = Missed(reason=data["reason"], **common)
    else:
        row = Header(
            block_hash=bytes.fromhex(data["blockHash"]),
            journal_root=bytes.fromhex(data["journalRoot"]),
            opened=data["opened"],
            closed=data["closed"],
            prices_hash=bytes.fromhex(data["pricesHash"]),
            price_max_age_us=data["priceMaxAgeUs"],
            parameters_hash=bytes.fromhex(data["parametersHash"]),
            code_hash=bytes.fromhex(data["codeHash"]),
            reserves_hash=bytes.fromhex(data["reservesHash"]),
            columns=data["columns"],
            group_bits=data["groupBits"],
            liabilities_root=bytes.fromhex(data["liabilitiesRoot"]),
            totals=[int(total) for total in data["totals"]],
            trial_balance=[
                TrialLine(line["accountType"], line["asset"], line["columns"], int(line["atoms"]))
                for line in data["trialBalance"]
            ],
            system={name: int(atoms) for name, atoms in data["system"].items()},
            pools=[_pool_line(line) for line in data["pools"]],
            insurance_atoms=int(data["insurance"]),
            **common,
        )
    if row.text() != text:
        raise ValueError(f"the row of epoch {row.epoch} is not in canonical form")
    return row


def _pool_fields(pool: PoolLine) -> dict[str, Any]:
    return {
        "asset": pool.asset,
        "lent": str(pool.lent),
        "fees": str(pool.fees),
        "borrowed": str(pool.borrowed),
        "idle": str(pool.idle),
        "staked": str(pool.staked),
        "yields": str(pool.yields),
        "lendShares": str(pool.lend_shares),
        "debtShares": str(pool.debt_shares),
        "lenders": pool.lenders,
        "borrowers": pool.borrowers,
    }


def _pool_line(line: dict[str, Any]) -> PoolLine:
    return PoolLine(
        asset=line["asset"],
        lent=int(line["lent"]),
        fees=int(line["fees"]),
        borrowed=int(line["borrowed"]),
        staked=int(line["staked"]),
        yields=int(line["yields"]),
        lend_shares=int(line["lendShares"]),
        debt_shares=int(line["debtShares"]),
        lenders=line["lenders"],
        borrowers=line["borrowers"],
    )


def _row_fields(row: Row) -> dict[str, Any]:
    return {
        "version": VERSION,
        "exchange": row.exchange,
        "epoch": row.epoch,
        "previous": row.previous.hex(),
        "hour": row.hour,
        "firstHour": row.first_hour,
        "lastHour": row.last_hour,
        "missedHours": row.missed_hours,
        "atUs": row.at_us,
        "blockHeight": row.block_height,
        "accounts": row.accounts,
    }


def _hours(hour: int | None, previous: Row | None) -> tuple[int | None, int | None, int]:
    """First hour, last hour and missed hours once a row of `hour` (None: on demand) is appended."""
    first = previous.first_hour if previous else None
    last = previous.last_hour if previous else None
    missed = previous.missed_hours if previous else 0
    if hour is None:
        return first, last, missed
    return (hour if first is None else first), hour, missed


def _require_next_hour(hour: int, previous: Row | None) -> None:
    if previous is not None and previous.last_hour is not None and hour != previous.last_hour + 1:
        raise BuildRefused(f"hour {hour} does not follow hour {previous.last_hour}: a row is missing or doubled")


def _of_asset(column: str, asset: str, known: dict[str, int]) -> str:
    if column not in known:
        raise BuildRefused(f"the trial balance names column {column}, which the leaves do not have")
    if column.partition(".")[0] != asset:
        raise BuildRefused(f"the trial balance shows column {column} under {asset}")
    return column
