"""A pool with its positions and everybody's coins, as a vector shows it between two steps, in whole numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tools.conformance.vectors import Row, Unreadable, atoms, dec, pick

NATIVE = "rowan"
POOL_AMOUNTS = (
    "native_asset_balance",
    "external_asset_balance",
    "native_custody",
    "external_custody",
    "native_liabilities",
    "external_liabilities",
    "block_interest_native",
    "block_interest_external",
    "unsettled_native_liabilities",
    "unsettled_external_liabilities",
)
POOL_DECS = ("health", "interest_rate")
POSITION_AMOUNTS = (
    "collateral_amount",
    "liabilities",
    "custody_amount",
    "interest_paid_collateral",
    "interest_paid_custody",
    "interest_unpaid_collateral",
)
POSITION_DECS = ("leverage", "mtp_health")
FUND = "fund"
MODULE = "module:clp"
"""Where the pool's coins are: balance and custody."""


class Side(NamedTuple):
    """Of one asset."""

    native: int
    external: int


class Image(NamedTuple):
    pool: dict[str, int]
    """By the vector's names."""
    positions: list[dict[str, Any]]
    """In the order of the original's keys: owner, then id."""
    coins: dict[str, Side]
    """User, the fund or the pool's account → what it holds."""

    def copy(self) -> Image:
        return Image(dict(self.pool), [dict(each) for each in self.positions], dict(self.coins))


class Terms(NamedTuple):
    """The parameters of a sequence; rates, shares and healths in 1e-18."""

    leverage_max: int
    rate_min: int
    rate_max: int
    rate_increase: int
    rate_decrease: int
    gain_factor: int
    epoch_length: int
    open_threshold: int
    removal_threshold: int
    safety_factor: int
    interest_fund_share: int
    close_fund_share: int
    pays_each_epoch: bool
    max_positions: int
    takes_native_collateral: bool
    fee_rate: int
    running_rate: int


def read_pool(row: Row) -> dict[str, int]:
    """A pool of a vector; what it does not name is 0."""
    pool = {name: atoms(row, name) if name in row else 0 for name in POOL_AMOUNTS}
    return pool | {name: dec(row, name) if name in row else 0 for name in POOL_DECS}


def read_position(row: Row, assets: tuple[str, ...]) -> dict[str, Any]:
    if row["collateral_asset"] not in assets:
        raise Unreadable(f"position {row['id']} has collateral {row['collateral_asset']!r}, the pool {assets}")
    position: dict[str, Any] = {name: atoms(row, name) for name in POSITION_AMOUNTS}
    position |= {name: dec(row, name) for name in POSITION_DECS}
    return position | {"id": int(row["id"]), "owner": row["owner"], "is_native": row["collateral_asset"] == NATIVE}


def read_coins(row: Row) -> dict[str, Side]:
    """Bank arrays are [native, external]."""
    return {name: Side(int(held[0]), int(held[1])) for name, held in row.items()}


def read_after(step: Row, assets: tuple[str, ...]) -> Image:
    """After a step; `assets` are the two of the pool."""
    positions = sorted((read_position(each, assets) for each in step["mtps_after"]), key=order)
    return Image(read_pool(step["pool_after"]), positions, read_coins(step["bank_after"]))


def read_terms(row: Row) -> Terms:
    """The parameters of a sequence, by the vector's names."""
    given = row["params"]
    return Terms(
        leverage_max=dec(given, "leverage_max"),
        rate_min=dec(given, "interest_rate_min"),
        rate_max=dec(given, "interest_rate_max"),
        rate_increase=dec(given, "interest_rate_increase"),
        rate_decrease=dec(given, "interest_rate_decrease"),
        gain_factor=dec(given, "health_gain_factor"),
        epoch_length=max(1, atoms(given, "epoch_length")),
        open_threshold=dec(given, "pool_open_threshold"),
        removal_threshold=dec(given, "removal_queue_threshold"),
        safety_factor=dec(given, "safety_factor"),
        interest_fund_share=dec(given, "incremental_interest_payment_fund_percentage"),
        close_fund_share=dec(given, "force_close_fund_percentage"),
        pays_each_epoch=bool(pick(given, "incremental_interest_payment_enabled")),
        max_positions=atoms(given, "max_open_positions"),
        takes_native_collateral=bool(pick(given, "rowan_collateral_enabled")),
        fee_rate=dec(row, "swap_fee_rate"),
        running_rate=dec(row, "pmtp_current_running_rate"),
    )


def order(position: dict[str, Any]) -> tuple[str, int]:
    return position["owner"], position["id"]


def differences(ours: Image, theirs: Image, rate_aside: bool = False) -> Iterator[str]:
    """Every field that is not the same, both values; `rate_aside`: but for the interest rate."""
    for name, value in theirs.pool.items():
        if ours.pool[name] != value and not (rate_aside and name == "interest_rate"):
            yield f"pool {name}: ours {ours.pool[name]}, theirs {value}"
    mine, other = ({each["id"]: each for each in image.positions} for image in (ours, theirs))
    for number in sorted(mine.keys() | other.keys()):
        if number not in mine or number not in other:
            yield f"position {number}: {'only ours' if number in mine else 'only theirs'}"
            continue
        for name, value in other[number].items():
            if mine[number][name] != value:
                yield f"position {number} {name}: ours {mine[number][name]}, theirs {value}"
    for name, held in theirs.coins.items():
        if ours.coins.get(name) != held:
            yield f"coins of {name}: ours {ours.coins.get(name)}, theirs {held}"
