"""The epoch header: all that an epoch commits to, its one text, and what must balance in it.   [R-5, R-6, R-7, R-12]"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ledger.amounts import mul_div_down
from por.canonical import (
    AMM_VERSION,
    COLUMN_LIMIT,
    MARKETS_VERSION,
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
from por.conservation import UNSETTLED_COLUMNS, amm_coins, require_conservation
from por.image import HOUR_US, AmmLine, Image, MarketLine, PoolLine, TrialLine
from por.tree import SumTree

# Counted by the builder itself: one per account, and one per account whose net equity is below zero.  
COUNT_COLUMN = "accounts"
NEGATIVE_COLUMN = "negative_accounts"
NET_EQUITY_MINUS = "net_equity_minus"
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
    markets: list[MarketLine] = []
    unsettled: dict[str, int] = {}
    pool_holes: dict[str, int] = {}
    amms: list[AmmLine] = []

    def text(self) -> str:
        return canonical_json(
            {
                **_row_fields(self),
                **self._market_fields(),
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

    def _market_fields(self) -> dict[str, Any]:
        """What a header of version 2 says besides; nothing, and version 1, where nothing settles. One of version 3 has
        liquidity pools.
        """
        if not (self.markets or self.unsettled or self.pool_holes or self.amms):
            return {}
        fields: dict[str, Any] = {
            "version": MARKETS_VERSION,
            "markets": [_market_fields(line) for line in self.markets],
            "unsettled": {asset: str(atoms) for asset, atoms in self.unsettled.items()},
            "poolHoles": {asset: str(atoms) for asset, atoms in self.pool_holes.items()},
        }
        if self.amms:
            fields |= {"version": AMM_VERSION, "liquidityPools": [_amm_fields(line) for line in self.amms]}
        return fields

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
        markets=image.markets,
        unsettled=image.unsettled,
        pool_holes=image.pool_holes,
        amms=image.amms,
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


def reserves_text(image: Image, epoch: int) -> str:
    """The reserves statement: every line, and per asset the ratio of reserves to liabilities, rounded down.   [R-12]

    A ratio is at scale 1e9 and None where nothing is owed. Assets are never netted: each stands for itself. What users
    owe does not lower what they are owed, and is no reserve: loans of an asset stand beside it, with a ratio of their
    own that counts them in. All coins of liquidity pools are owed, to providers and for positions; what positions owe
    the pools is no coin and no loan of one: it never left them.
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
    for asset, coins in amm_coins(image.amms).items():
        owed[asset] = owed.get(asset, 0) + coins
    for asset in image.unsettled:
        # Winners wait for it and losers owe it: gross, like loans.   [S-13]
        plus, minus = waiting(image, asset)
        owed[asset] = owed.get(asset, 0) + plus
        loans[asset] = loans.get(asset, 0) + minus

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


def waiting(image: Image, asset: str) -> tuple[int, int]:
    """Σ of settled gains that users wait for, and of settled losses that they owe, in this asset.   [S-13]"""
    at = [image.columns.index(f"{asset}.{kind}") for kind in UNSETTLED_COLUMNS[:2]]
    plus, minus = (sum(account.amounts[column] for account in image.accounts) for column in at)
    return plus, minus


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
            markets=[_market_line(line) for line in data.get("markets", [])],
            unsettled={asset: int(atoms) for asset, atoms in data.get("unsettled", {}).items()},
            pool_holes={asset: int(atoms) for asset, atoms in data.get("poolHoles", {}).items()},
            amms=[_amm_line(line) for line in data.get("liquidityPools", [])],
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


def _market_fields(line: MarketLine) -> dict[str, Any]:
    return {
        "market": line.market,
        "base": line.base,
        "quote": line.quote,
        "lot": str(line.lot),
        "mark": str(line.mark),
        "settled": str(line.settled),
        "cost": str(line.cost),
        "claimLend": str(line.claim_lend),
        "claimDebt": str(line.claim_debt),
        "winners": line.winners,
        "losers": line.losers,
    }


def _market_line(line: dict[str, Any]) -> MarketLine:
    return MarketLine(
        market=line["market"],
        base=line["base"],
        quote=line["quote"],
        lot=int(line["lot"]),
        mark=int(line["mark"]),
        settled=int(line["settled"]),
        cost=int(line["cost"]),
        claim_lend=int(line["claimLend"]),
        claim_debt=int(line["claimDebt"]),
        winners=line["winners"],
        losers=line["losers"],
    )


def _amm_fields(line: AmmLine) -> dict[str, Any]:
    return {
        "pool": line.pool,
        "native": line.native,
        "nativeBalance": str(line.native_balance),
        "externalBalance": str(line.external_balance),
        "nativeCustody": str(line.native_custody),
        "externalCustody": str(line.external_custody),
        "nativeOwed": str(line.native_owed),
        "externalOwed": str(line.external_owed),
        "units": str(line.units),
        "nativeFund": str(line.native_fund),
        "externalFund": str(line.external_fund),
    }


def _amm_line(line: dict[str, Any]) -> AmmLine:
    return AmmLine(
        pool=line["pool"],
        native=line["native"],
        native_balance=int(line["nativeBalance"]),
        external_balance=int(line["externalBalance"]),
        native_custody=int(line["nativeCustody"]),
        external_custody=int(line["externalCustody"]),
        native_owed=int(line["nativeOwed"]),
        external_owed=int(line["externalOwed"]),
        units=int(line["units"]),
        native_fund=int(line["nativeFund"]),
        external_fund=int(line["externalFund"]),
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
