"""An epoch over 100,000 subaccounts × 10 columns: leaves, hash groups, sum tree, header.

`python -m tests.bench.epoch_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
from random import Random
from time import perf_counter

from por.epochs import build_epoch
from por.image import HOUR_US, Account, Image, Price, ReserveLine, TrialLine
from tests.bench.rows import Row, show

SUBACCOUNTS = 100_000
HOUR = 495_000
COLUMNS = [
    "BTC.available", "BTC.in_orders", "BTC.withdrawing",
    "USDC.available", "USDC.in_orders", "USDC.withdrawing", "USDC.provisional",
    "collateral_value", "net_equity_plus", "net_equity_minus",
]  # fmt: skip


def run(scale: float = 1.0) -> list[Row]:
    """Seconds to build one epoch from an image of the ledger."""
    image = image_of(int(SUBACCOUNTS * scale))
    started = perf_counter()
    epoch = build_epoch(image, None, bytes(32))
    seconds = perf_counter() - started
    assert epoch.header.accounts == len(image.accounts)
    what = f"epoch over {len(image.accounts):,} subaccounts × {len(COLUMNS)} columns"
    return [Row(what, seconds, "s", seconds, seconds, "at most 3 s")]


def image_of(subaccounts: int, seed: int = 3) -> Image:
    """A ledger that balances by construction."""
    random = Random(seed)
    accounts = []
    for number in range(1, subaccounts + 1):
        amounts = [random.randrange(10**12) for _ in range(7)] + [random.randrange(10**15)] * 2 + [0]
        amounts[6] = amounts[3] // 2
        accounts.append(Account(number, number // 2 + 1, amounts, '{"status":"active"}'))
    sums = [sum(account.amounts[at] for account in accounts) for at in range(7)]
    at_us = HOUR * HOUR_US + 1_000_000
    custody = {"BTC": sum(sums[:3]), "USDC": sum(sums[3:6]) + sums[6]}
    available = ["USDC.available", "USDC.in_orders", "USDC.provisional"]
    return Image(
        exchange="satchel-bench",
        hour=HOUR,
        at_us=at_us,
        block_height=77,
        block_hash=bytes([7]) * 32,
        journal_root=bytes([8]) * 32,
        columns=COLUMNS,
        accounts=accounts,
        opened=subaccounts,
        closed=0,
        prices=[Price("BTC", 100, at_us), Price("USDC", 1, at_us)],
        price_max_age_us=60_000_000,
        parameters="{}",
        code_version="bench",
        trial_balance=[
            TrialLine("available", "BTC", ["BTC.available", "BTC.in_orders"], -sums[0] - sums[1]),
            TrialLine("withdrawing", "BTC", ["BTC.withdrawing"], -sums[2]),
            TrialLine("available", "USDC", available, -sums[3] - sums[4] - sums[6]),
            TrialLine("withdrawing", "USDC", ["USDC.withdrawing"], -sums[5]),
        ],
        system={f"{asset}.custody": atoms for asset, atoms in custody.items()},
        reserves=[ReserveLine(asset, "custody", "custody/1/hot", atoms) for asset, atoms in custody.items()],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show("epoch", run(arguments.parse_args().scale))
