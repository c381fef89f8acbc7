"""What absorbs a gap: `python -m tests.simulation.gaps` prints, for each shock and book, which stage took how much.

Thirty longs of 3x to 20x face makers; the index falls by 5 %, 30 % or 60 % at once, or the book alone for one second (a
wick); the book below is thick or empty. Rows are in USDC: what the losers paid themselves, and what each stage of the
ladder moved after that.   [L-1 … L-9, P-2]
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NamedTuple

from engine import genesis, margin
from engine.commands import (
    BorrowLend,
    CancelAllOrders,
    FundCustody,
    FundInsurance,
    Genesis,
    LendingSide,
    OrderType,
    PlaceOrder,
    RegisterBackstop,
    SetPrices,
    Side,
    TimeInForce,
    UpdateAccount,
)
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from ledger.chart import BACKSTOP_FUND, INSURANCE_FUND
from tests.simulation.january import SECOND_US, USDC_ATOMS, Month, Run

PRICE = 40_000
SHOCKS = {"-5 %": 0.95, "-30 %": 0.70, "-60 %": 0.40, "wick of 1 s": 0.70}
BOOKS = ("thick", "empty")


class Outcome(NamedTuple):
    """What was left of it, in USDC but for the counts."""

    shock: str
    book: str
    liquidated: int
    steps: dict[str, int]
    traders: float
    makers: float
    providers: float
    insurance: float
    backstop: float
    shared: float
    holes: dict[str, int]


class Gap(Month):
    """A small market before a gap."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.do(Genesis(genesis.load("devnet"), bytes(32)))
        self.usdc, self.btc, self.sol = (self._asset(symbol) for symbol in ("USDC", "BTC", "SOL"))
        self.perp, self.spot, self.sol_spot = (
            self._market(symbol) for symbol in ("BTC_USDC_PERP", "BTC_USDC", "SOL_USDC")
        )
        run.do(SetPrices(((self.btc, PRICE * PRICE_SCALE), (self.sol, 100 * PRICE_SCALE))))
        run.pass_time(run.at_us + 120 * SECOND_US)
        self.makers = [self._join("maker", usdc=300_000_000) for _ in range(3)]
        self.lenders = [self._join("lender", usdc=1_000_000)]
        self.providers = [self._join("provider", usdc=100_000)]
        run.do(FundCustody(1, "seed", 0, self.usdc, 100_000 * USDC_ATOMS))
        run.do(FundInsurance(20_000 * USDC_ATOMS))
        run.do(BorrowLend(self.lenders[0], self.usdc, LendingSide.LEND, 500_000 * USDC_ATOMS), self.lenders[0])
        run.do(RegisterBackstop(self.providers[0], 500_000 * USD_SCALE), self.providers[0])
        self.traders = []
        self.quote(PRICE)
        for place in range(30):
            leverage = (3, 5, 10, 14, 17)[place % 5]
            # Every third brings BTC as collateral: what falls with the position.
            number = self._join("long", usdc=2_000) if place % 3 else self._join("long", usdc=500, btc=1)
            run.do(UpdateAccount(number, leverage_limit=20 * RATE_SCALE), number)
            self.traders.append(number)
            equity = margin.sums(run.state, run.state.subaccounts[number], run.at_us).equity
            lots = equity * leverage // (PRICE * USD_SCALE // 10_000)
            self._order(number, self.perp, Side.BID, PRICE * 10 * 101 // 100, int(lots))

    def quote(self, price: int, levels: int = 40) -> None:
        """Every maker quotes the perpetual and the spot market, a level each tenth of a percent down and up."""
        for number in self.makers:
            self.run.do(CancelAllOrders(number), number)
            for level in range(1, levels):
                away = price * 10 * level // 1_000
                for market_id, lots in ((self.perp, 60_000), (self.spot, 5_000)):
                    self._order(number, market_id, Side.BID, price * 10 - away, lots, TimeInForce.GTC)
                    if market_id == self.perp:
                        self._order(number, market_id, Side.ASK, price * 10 + away, lots, TimeInForce.GTC)

    def clear(self) -> None:
        for number in self.makers:
            self.run.do(CancelAllOrders(number), number)

    def _order(
        self, number: int, market_id: int, side: Side, ticks: int, lots: int, tif: TimeInForce = TimeInForce.IOC
    ) -> None:
        self.run.do(PlaceOrder(number, market_id, side, OrderType.LIMIT, tif, ticks, lots), number)


def play(shock: str, book: str) -> tuple[Outcome, Run, Gap]:
    """One shock on one book, and three minutes of what follows."""
    run = Run(7)
    gap = Gap(run)
    before = {name: _worth(gap, group) for name, group in _groups(gap)}
    insurance, backstop = gap._fund(INSURANCE_FUND), gap._fund(BACKSTOP_FUND)
    after = round(PRICE * SHOCKS[shock])
    if shock.startswith("wick"):
        # The book alone: quotes are gone, two far ones are left for a second.
        gap.clear()
        gap._order(gap.makers[0], gap.perp, Side.BID, after * 10 - 10, 10, TimeInForce.GTC)
        gap._order(gap.makers[1], gap.perp, Side.ASK, after * 10 + 10, 10, TimeInForce.GTC)
        run.pass_time(run.at_us + SECOND_US)
        gap.quote(PRICE) if book == "thick" else gap.clear()
    else:
        gap.clear()
        run.do(SetPrices(((gap.btc, after * PRICE_SCALE),)))
        if book == "thick":
            gap.quote(after)
    run.pass_time(run.at_us + 180 * SECOND_US)
    run.close_block()
    state = run.state
    return (
        Outcome(
            shock,
            book,
            run.stages["started"],
            dict(sorted(run.stages.items())),
            _worth(gap, gap.traders) - before["traders"],
            _worth(gap, gap.makers) - before["makers"],
            _worth(gap, gap.providers) - before["providers"],
            gap._fund(INSURANCE_FUND) - insurance,
            gap._fund(BACKSTOP_FUND) - backstop,
            run.losses_shared / USDC_ATOMS,
            {state.assets[asset].symbol: atoms for asset, atoms in state.holes.items() if atoms},
        ),
        run,
        gap,
    )


def _groups(gap: Gap) -> tuple[tuple[str, list[int]], ...]:
    return ("traders", gap.traders), ("makers", gap.makers), ("providers", gap.providers)


def _worth(gap: Gap, numbers: list[int]) -> float:
    state = gap.run.state
    return sum(margin.realizable(state, state.subaccounts[number], gap.run.at_us) for number in numbers) / USD_SCALE


def main() -> int:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m tests.simulation.gaps", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcomes = [play(shock, book)[0] for shock in SHOCKS for book in BOOKS]
    if options.json:
        print(json.dumps([outcome._asdict() for outcome in outcomes], indent=2))
        return 0
    table = Table(title="Which stage absorbs what")
    for name in Outcome._fields:
        table.add_column(name)
    for outcome in outcomes:
        cells: list[Any] = [f"{cell:,.0f}" if isinstance(cell, float) else cell for cell in outcome]
        cells[3] = ", ".join(f"{stage} {count}" for stage, count in outcome.steps.items())
        table.add_row(*(str(cell) for cell in cells))
    Console(width=200).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
