"""A month of a real market over a population of simulated traders: `python -m tests.simulation.january --bars FILE`.

One-minute bars become index prices; makers quote around the mark, two thousand traders with leverage up to 20x come and
go, lenders lend, some borrow what they sell, providers stand behind, and for a few minutes after the worst bars nobody
quotes at all. Conservation is checked at every block (a minute), the run is repeated from its commands, byte for byte,
and a report with plots says what happened. Nothing here is random but the seed.   [A-6, A-13, L-9, S-10 … S-15]
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from engine import genesis, lending, limits, margin, snapshot
from engine.clock import due
from engine.commands import (
    BorrowLend,
    CancelAllOrders,
    Command,
    CreditDeposit,
    FundCustody,
    FundInsurance,
    Genesis,
    LendingSide,
    OrderType,
    PlaceOrder,
    PlaceOrders,
    RegisterBackstop,
    RegisterKey,
    SetPrices,
    Side,
    TimeInForce,
    UpdateAccount,
    decode,
    encode,
)
from engine.events import LiquidationChanged, LossShared, Outcome, PositionsSettled, Trade
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from engine.state import State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import BACKSTOP_FUND, INSURANCE_FUND
from ledger.invariants import RunningTotals
from ledger.journal import GENESIS_HASH, seal

USDC_ATOMS, BTC_ATOMS, SOL_ATOMS = 10**6, 10**8, 10**9
MINUTE_US, SECOND_US = 60_000_000, 1_000_000
QUIET_MINUTES = 4
"""How long nobody quotes after a bar that moved by more than `WILD`."""
WILD = 0.012


class Bar(NamedTuple):
    open: int
    high: int
    low: int
    close: int
    """In cents of a dollar."""


class Sample(NamedTuple):
    """What the report plots, once every quarter of an hour."""

    minute: int
    price: float
    equity: float
    insurance: float
    backstop: float
    funding: float
    utilization: float
    open_interest: float
    in_liquidation: int


def bars(path: Path, limit: int) -> list[Bar]:
    found = []
    with path.open() as file:
        for row in csv.DictReader(file):
            found.append(Bar(*(round(float(row[name]) * 100) for name in ("open", "high", "low", "close"))))
            if len(found) == limit:
                break
    return found


class Run:
    """One exchange in memory, its command log, the head of its journal, and what was seen."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.state = State()
        self.at_us = 1_640_991_600_000_000
        self.log: list[tuple[int, bytes, tuple[bytes, bytes, bytes] | None]] = []
        self.head, self.journal_seq = GENESIS_HASH, 0
        self.totals = RunningTotals()
        self.sealed: list[Any] = []
        self.requests = 0
        self.stages: Counter[str] = Counter()
        self.stage_of_minute: dict[int, Counter[str]] = {}
        self.trades: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.ticks = 0
        self.unsettled_most = 0
        self.losses_shared = 0
        self.minute = 0
        self.samples: list[Sample] = []
        self.keys: dict[int, bytes] = {}

    def do(self, command: Command, signer: int = 0) -> Outcome:
        """Apply a command, signed by the subaccount's key when one is named."""
        request = None
        if signer:
            self.requests += 1
            text = b"%d" % self.requests
            request = SignedRequest(self.keys[signer], sha256(text).digest() * 2, text, 1_000, 60_000, 1_000)
        outcome = apply(self.state, self.state.sequence + 1, self.at_us, command, request)
        kept = None if request is None else (request.api_key, request.signature, request.text)
        self.log.append((self.at_us, encode(command), kept))
        self._seal(outcome)
        self._see(outcome)
        return outcome

    def pass_time(self, until_us: int) -> None:
        """Everything that falls due runs at its due time."""
        while (tick := due(self.state, until_us)) is not None:
            self.at_us = max(self.at_us, tick[0])
            self.do(tick[1])
        self.at_us = until_us

    def close_block(self) -> None:
        """Conservation, over everything posted since the last block.   [A-13]"""
        self.totals.add(self.sealed)
        self.sealed.clear()
        self.totals.require()

    def _seal(self, outcome: Outcome) -> None:
        for entry in outcome.journal:
            self.journal_seq += 1
            sealed = seal(self.head, self.journal_seq, outcome.seq, outcome.at_us, entry)
            self.head = sealed.hash
            self.sealed.append(sealed)

    def _see(self, outcome: Outcome) -> None:
        if outcome.rejection is not None:
            self.refusals[outcome.rejection.reason.name] += 1
        for event in outcome.events:
            match event:
                case LiquidationChanged():
                    self.stages[event.stage] += 1
                    self.stage_of_minute.setdefault(self.minute, Counter())[event.stage] += 1
                case Trade():
                    terms = event.taker.terms
                    self.trades[terms.origin.name if terms is not None else "USER"] += 1
                case PositionsSettled():
                    self.ticks += 1
                    self.unsettled_most = max(self.unsettled_most, event.unsettled_atoms)
                case LossShared():
                    self.losses_shared += event.atoms


class Month:
    """Who is there, and what they do each minute."""

    def __init__(self, run: Run, traders: int) -> None:
        self.run = run
        state = run.state
        run.do(Genesis(genesis.load("devnet"), bytes(32)))
        self.usdc, self.btc, self.sol = (self._asset(symbol) for symbol in ("USDC", "BTC", "SOL"))
        self.perp, self.spot = self._market("BTC_USDC_PERP"), self._market("BTC_USDC")
        self.sol_spot = self._market("SOL_USDC")
        self.quiet_until = 0
        self.makers = [self._join("maker", usdc=50_000_000, btc=400, sol=200_000) for _ in range(4)]
        self.providers = [self._join("provider", usdc=400_000) for _ in range(2)]
        self.lenders = [self._join("lender", usdc=2_000_000, btc=40, sol=4_000) for _ in range(6)]
        self.borrower = self._join("borrower", usdc=20_000_000)
        self.traders = [self._trader() for _ in range(traders)]
        self.wants = {number: run.random.choice((3, 5, 8, 10, 15, 20)) for number in self.traders}
        # Longs whose collateral is lent, to who borrows all of it: when they fall, a pool cannot redeem.   [L-8]
        self.lending_longs = [self._join("lending long", usdc=2_000, sol=900) for _ in range(8)]
        for number in self.lending_longs:
            self.wants[number] = 7
        self.traders += self.lending_longs * 12
        assert state.markets[self.perp].parameters.perpetual is not None

    def begin(self, bar: Bar) -> None:
        """The first prices, the loans and the providers."""
        run = self.run
        run.do(SetPrices(self._prices(bar.open)))
        run.do(FundCustody(1, "seed", 0, self.usdc, 250_000 * USDC_ATOMS))
        run.do(FundInsurance(50_000 * USDC_ATOMS))
        for number in self.providers:
            run.do(RegisterBackstop(number, 2_000_000 * USD_SCALE), number)
        for number in self.lenders:
            run.do(BorrowLend(number, self.usdc, LendingSide.LEND, 1_500_000 * USDC_ATOMS), number)
            run.do(BorrowLend(number, self.btc, LendingSide.LEND, 30 * BTC_ATOMS), number)
            run.do(BorrowLend(number, self.sol, LendingSide.LEND, 3_500 * SOL_ATOMS), number)
        for number in dict.fromkeys(self.traders):
            chance = run.random.random()
            if chance < 0.05:
                run.do(UpdateAccount(number, auto_realize_pnl=False), number)
            elif chance < 0.15:
                run.do(UpdateAccount(number, auto_lend=True), number)
            elif chance < 0.20:
                run.do(UpdateAccount(number, auto_borrow_settlements=False), number)
            run.do(UpdateAccount(number, leverage_limit=20 * RATE_SCALE), number)
        for number in self.lending_longs:
            run.do(UpdateAccount(number, auto_lend=False), number)
            run.do(BorrowLend(number, self.sol, LendingSide.LEND, 900 * SOL_ATOMS), number)

    def live(self, bar: Bar) -> None:
        """One minute: three prices, quotes, a few traders, everything that falls due."""
        run = self.run
        start_us = run.at_us
        # Against the way it went first, then its extreme, then where it ended.
        path = (bar.low, bar.high, bar.close) if bar.close > bar.open else (bar.high, bar.low, bar.close)
        if abs(bar.close - bar.open) > WILD * bar.open or (bar.high - bar.low) > 2 * WILD * bar.open:
            self.quiet_until = run.minute + QUIET_MINUTES
        for part, cents in enumerate(path):
            run.do(SetPrices(self._prices(cents)))
            if part == 0:
                self._quote()
                self._trade()
            run.pass_time(start_us + (part + 1) * MINUTE_US // len(path))
        if run.minute % 60 == 30:
            most = limits.max_borrow(run.state, run.state.subaccounts[self.borrower], self.sol, run.at_us + 1)
            if most:
                run.do(BorrowLend(self.borrower, self.sol, LendingSide.BORROW, most), self.borrower)
        run.close_block()

    def sample(self) -> Sample:
        """The figures of this moment, for the plots."""
        state, at_us = self.run.state, self.run.at_us
        market = state.markets[self.perp]
        now = lending.totals(state, state.pools[self.usdc], at_us)
        equity = sum(
            margin.sums(state, state.subaccounts[number], at_us).equity for number in dict.fromkeys(self.traders)
        ) / USD_SCALE
        return Sample(
            self.run.minute,
            state.prices[self.btc] / PRICE_SCALE,
            equity,
            self._fund(INSURANCE_FUND),
            self._fund(BACKSTOP_FUND),
            market.funding_rate / RATE_SCALE,
            now.borrowed / max(1, now.lent + now.fees),
            market.open_interest * market.parameters.lot_atoms / BTC_ATOMS,
            len(state.liquidations),
        )

    def _fund(self, account: int) -> float:
        return -self.run.state.balances.get(account << 24 | self.usdc, 0) / USDC_ATOMS

    def _asset(self, symbol: str) -> int:
        return next(each.asset_id for each in self.run.state.assets.values() if each.symbol == symbol)

    def _market(self, symbol: str) -> int:
        return next(
            number for number, each in self.run.state.markets.items() if each.parameters.symbol == symbol
        )

    def _prices(self, cents: int) -> tuple[tuple[int, int], ...]:
        # SOL moves twice as far as BTC, in whole cents.
        sol = max(100, 17_000 * cents * cents // (4_631_900 * 4_631_900))
        return (self.btc, cents * PRICE_SCALE // 100), (self.sol, sol * PRICE_SCALE // 100)

    def _join(self, name: str, usdc: int = 0, btc: int = 0, sol: int = 0) -> int:
        run = self.run
        key = sha256(f"{name}/{run.state.next_user_id}".encode()).digest()
        number: int = run.do(RegisterKey(key)).reply.subaccount_id
        run.keys[number] = key
        for asset, atoms in ((self.usdc, usdc * USDC_ATOMS), (self.btc, btc * BTC_ATOMS), (self.sol, sol * SOL_ATOMS)):
            if atoms:
                run.do(CreditDeposit(1, f"{number}/{asset}", 0, number, number, asset, atoms, 1, "block", True))
        return number

    def _trader(self) -> int:
        chance, size = self.run.random.random(), self.run.random.choice((500, 1_000, 2_000, 5_000, 10_000))
        if chance < 0.7:
            return self._join("trader", usdc=size)
        if chance < 0.9:
            number = self._join("trader", usdc=size // 5)
            sol = size * SOL_ATOMS // 170
            self.run.do(CreditDeposit(1, f"{number}/sol", 0, number, number, self.sol, sol, 1, "block", True))
            return number
        number = self._join("trader", usdc=size // 5)
        btc = size * BTC_ATOMS // 46_000
        self.run.do(CreditDeposit(1, f"{number}/btc", 0, number, number, self.btc, btc, 1, "block", True))
        return number

    def _quote(self) -> None:
        """Makers quote three levels a side around the index; after a wild bar nobody does."""
        run, state = self.run, self.run.state
        is_quiet = run.minute < self.quiet_until
        for place, number in enumerate(self.makers):
            run.do(CancelAllOrders(number), number)
            if is_quiet:
                continue
            batch = []
            for market_id, asset, lots in ((self.perp, self.btc, 4_000), (self.spot, self.btc, 1_500),
                                           (self.sol_spot, self.sol, 3_000)):
                parameters = state.markets[market_id].parameters
                middle = state.prices[asset] // parameters.tick_price
                for level in (1, 2, 3):
                    away = middle * (2 * level + place) // 10_000
                    for side, price in ((Side.BID, middle - away), (Side.ASK, middle + away)):
                        batch.append(
                            PlaceOrder(number, market_id, side, OrderType.LIMIT, TimeInForce.GTC, price, lots)
                        )
            run.do(PlaceOrders(tuple(batch)), number)

    def _trade(self) -> None:
        """A few traders open towards their leverage, close, or sell what they borrow."""
        run, state = self.run, self.run.state
        for _ in range(run.random.randrange(4, 16)):
            number = run.random.choice(self.traders)
            if number in state.liquidations:
                continue
            account = state.subaccounts[number]
            held = account.positions.get(self.perp)
            if held is not None and held.lots and run.random.random() < 0.3:
                self._take(number, Side.ASK if held.lots > 0 else Side.BID, abs(held.lots), True)
                continue
            if run.random.random() < 0.08 and number not in self.lending_longs:
                run.do(PlaceOrder(number, self.sol_spot, Side.ASK, OrderType.MARKET, TimeInForce.IOC,
                                  lots=run.random.randrange(50, 800), auto_borrow=True, auto_lend_redeem=True), number)
                continue
            equity = margin.sums(state, account, run.at_us).equity
            lot_usd = state.markets[self.perp].mark_lot * USD_SCALE // USDC_ATOMS
            if equity <= 0 or not lot_usd:
                continue
            # Nearly all of them think it goes up: that is what makes a fall a crash.
            side = Side.BID if run.random.random() < 0.72 or number in self.lending_longs else Side.ASK
            target = equity * self.wants[number] * 8 // 10 // lot_usd
            current = 0 if held is None else held.lots if side is Side.BID else -held.lots
            lots = target - current
            if lots > 0:
                self._take(number, side, lots, False)

    def _take(self, number: int, side: Side, lots: int, reduce_only: bool) -> None:
        """Take at most half a percent away from the mark: a market order is judged at its far bound.   [M-9]"""
        market = self.run.state.markets[self.perp]
        mark = market.mark // market.parameters.tick_price
        limit = mark * 1_005 // 1_000 if side is Side.BID else mark * 995 // 1_000
        kind, ioc = OrderType.LIMIT, TimeInForce.IOC
        order = PlaceOrder(number, self.perp, side, kind, ioc, limit, lots, reduce_only=reduce_only)
        self.run.do(order, number)


def replay(log: Any, answer: Any) -> None:
    """A process of its own: the head of the journal and the hash of the state, from the commands alone.   [A-10]"""
    twin = Run(0)
    while (entries := log.get()) is not None:
        for at_us, payload, signer in entries:
            request = None
            if signer is not None:
                request = SignedRequest(*signer, 1_000, 60_000, 1_000)
            outcome = apply(twin.state, twin.state.sequence + 1, at_us, decode(payload), request)
            twin._seal(outcome)
            twin.sealed.clear()
    answer.put((twin.head.hex(), snapshot.state_hash(twin.state).hex()))


def simulate(path: Path, minutes: int, traders: int, seed: int, log: Any = None) -> tuple[Run, Month]:
    """The month, or its first minutes; each minute's commands go to `log` too."""
    run = Run(seed)
    month = Month(run, traders)
    found = bars(path, minutes)
    month.begin(found[0])
    for run.minute, bar in enumerate(_progress(found)):
        month.live(bar)
        if run.minute % 15 == 0:
            run.samples.append(month.sample())
        if run.minute % 1_440 == 0 and not sys.stderr.isatty():
            print(f"day {run.minute // 1_440}: {dict(run.stages)}", file=sys.stderr, flush=True)
        if log is not None:
            log.put(run.log)
        run.log = []
    if log is not None:
        log.put(None)
    return run, month


def summary(run: Run, month: Month) -> dict[str, Any]:
    """What happened, for people and machines."""
    state = run.state
    holes = {state.assets[asset].symbol: atoms for asset, atoms in state.holes.items() if atoms}
    last = month.sample()
    return {
        "minutes": run.minute + 1,
        "commands": state.sequence,
        "journalTransactions": run.journal_seq,
        "settlementTicks": run.ticks,
        "trades": dict(sorted(run.trades.items())),
        "liquidationSteps": dict(sorted(run.stages.items())),
        "refusals": dict(run.refusals.most_common(12)),
        "insuranceFundUsdc": last.insurance,
        "backstopFundUsdc": last.backstop,
        "lossesSharedUsdc": run.losses_shared / USDC_ATOMS,
        "mostUnsettledUsdc": run.unsettled_most / USDC_ATOMS,
        "lendersHoles": holes,
        "accountsInLiquidation": len(state.liquidations),
        "journalHead": run.head.hex(),
        "stateHash": snapshot.state_hash(state).hex(),
    }


def plot(run: Run, target: Path) -> None:
    """Equity, liquidations by stage, funding, utilization, insurance fund: one figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    days = [sample.minute / 1_440 for sample in run.samples]
    figure, axes = pyplot.subplots(6, 1, figsize=(11, 17), sharex=True)
    series = (
        ("BTC index, USD", [sample.price for sample in run.samples]),
        ("traders' net equity, USD", [sample.equity for sample in run.samples]),
        ("insurance fund, USDC", [sample.insurance for sample in run.samples]),
        ("funding rate, bps an hour", [sample.funding * 10_000 for sample in run.samples]),
        ("USDC utilization", [sample.utilization for sample in run.samples]),
    )
    for axis, (title, values) in zip(axes, series, strict=False):
        axis.plot(days, values, linewidth=1)
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(alpha=0.3)
    stages = sorted({stage for each in run.stage_of_minute.values() for stage in each})
    bottom = [0] * (run.minute // 60 + 1)
    hours = [hour / 24 for hour in range(len(bottom))]
    for stage in stages:
        counts = [0] * len(bottom)
        for minute, each in run.stage_of_minute.items():
            counts[minute // 60] += each[stage]
        axes[5].bar(hours, counts, width=1 / 24, bottom=bottom, label=stage)
        bottom = [low + count for low, count in zip(bottom, counts, strict=True)]
    axes[5].set_title("liquidation steps an hour, by stage", loc="left", fontsize=10)
    axes[5].set_yscale("symlog")
    if stages:
        axes[5].legend(fontsize=7, ncols=4)
    axes[5].set_xlabel("days")
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


def _progress(found: list[Bar]) -> Iterator[Bar]:
    from rich.progress import track

    yield from track(found, description="minutes", disable=not sys.stderr.isatty())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.january", description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=Path, required=True, help="timestamp,open,high,low,close,volume; a minute each")
    parser.add_argument("--minutes", type=int, default=1_000_000, help="only the first so many")
    parser.add_argument("--traders", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--out", type=Path, default=Path("january"), help="folder for report.json and report.png")
    parser.add_argument("--no-replay", action="store_true", help="do not run it again from its commands")
    options = parser.parse_args()
    began = time.monotonic()
    log = answer = twin = None
    if not options.no_replay:
        context = multiprocessing.get_context("spawn")
        log, answer = context.Queue(256), context.Queue()
        twin = context.Process(target=replay, args=(log, answer), daemon=True)
        twin.start()
    run, month = simulate(options.bars, options.minutes, options.traders, options.seed, log)
    report = summary(run, month)
    report["seconds"] = round(time.monotonic() - began)
    options.out.mkdir(parents=True, exist_ok=True)
    plot(run, options.out / "report.png")
    if answer is not None:
        report["replayIsIdentical"] = answer.get() == (report["journalHead"], report["stateHash"])
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 0 if report.get("replayIsIdentical", True) and not report["lendersHoles"] else 1


if __name__ == "__main__":
    sys.exit(main())
