"""A month of a real market over a population of simulated traders: `python -m tests.simulation.january --bars FILE`.

One-minute bars become index prices; makers quote around the index, two thousand traders with leverage up to 20x come
and go, lenders lend, some borrow what they sell, providers stand behind, and for a few minutes after the worst bars
nobody quotes at all. Conservation is checked at every block (a minute), the run is repeated from its commands, byte for
byte, a report with plots says what happened, and a whole file that leaves a stage of the ladder out is a failure.
Nothing here is random but the seed.   [A-6, A-13, L-1 … L-9, S-10 … S-15]
"""

from __future__ import annotations

import argparse
import csv
import gc
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
from engine.events import LiquidationChanged, LossShared, Outcome, PositionsSettled, SettlementMoved, Trade
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
SAMPLE_MINUTES = 60
STAGES = {
    "book": "slices on the order book (L-3)",
    "conversion": "collateral sold for what is owed in USDC (S-12)",
    "backstop": "taken over by a provider (L-4)",
    "insurance": "paid by the insurance fund (L-5)",
    "collateral": "collateral taken in kind (L-6)",
    "adl": "closed against opposing positions (L-6)",
    "loss": "a loss shared by one side's positions (L-6)",
    "debt": "a debt that nobody could buy back, paid out in value (L-7)",
    "lender_adl": "lent collateral that its borrowers gave back (L-8)",
}
"""What a whole month has to see at least once."""


class Bar(NamedTuple):
    open: int
    high: int
    low: int
    close: int
    """In cents of a dollar."""


class Sample(NamedTuple):
    """What the report plots, once an hour."""

    minute: int
    price: float
    equity: float
    insurance: float
    backstop: float
    funding: float
    utilization: float
    open_interest: float
    in_liquidation: int


def bars(path: Path) -> list[Bar]:
    with path.open() as file:
        return [
            Bar(*(round(float(row[name]) * 100) for name in ("open", "high", "low", "close")))
            for row in csv.DictReader(file)
        ]


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
                    self._count(event.stage)
                case SettlementMoved(source="conversion"):
                    self._count("conversion")
                case Trade():
                    terms = event.taker.terms
                    self.trades[terms.origin.name if terms is not None else "USER"] += 1
                case PositionsSettled():
                    self.ticks += 1
                    self.unsettled_most = max(self.unsettled_most, event.unsettled_atoms)
                case LossShared():
                    self._count("loss")
                    self.losses_shared += event.atoms

    def _count(self, stage: str) -> None:
        self.stages[stage] += 1
        self.stage_of_minute.setdefault(self.minute, Counter())[stage] += 1


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
        self.lenders = [self._join("lender", usdc=2_000_000) for _ in range(6)]
        self.traders = [self._trader() for _ in range(traders)]
        self.wants = {number: run.random.choice((3, 5, 8, 10, 15, 20)) for number in self.traders}
        # Nobody else lends BTC, and the borrower borrows as much as the throttle lets it: what these longs lent is not
        # there when they fall and have to sell it.   [L-8]
        self.lending_longs = [self._join("lending long") for _ in range(8)]
        for number in self.lending_longs:
            self.wants[number] = 20
        self.traders += self.lending_longs * 12
        self.borrower = self._join("borrower", usdc=20_000_000)
        # They sell as much borrowed SOL as margin allows: a jump up, or a book without asks, leaves debts that nobody
        # can buy back.   [L-7]
        self.bears = [self._join("bear") for _ in range(10)]
        assert state.markets[self.perp].parameters.perpetual is not None

    def begin(self, bar: Bar) -> None:
        """The first prices, the loans and the providers."""
        run = self.run
        run.do(SetPrices(self._prices(bar.open)))
        run.do(FundCustody(1, "seed", 0, self.usdc, 250_000 * USDC_ATOMS))
        run.do(FundInsurance(20_000 * USDC_ATOMS))
        for number in self.providers:
            run.do(RegisterBackstop(number, 2_000_000 * USD_SCALE), number)
        for number in self.lenders:
            run.do(BorrowLend(number, self.usdc, LendingSide.LEND, 1_500_000 * USDC_ATOMS), number)
        for number in dict.fromkeys(self.traders):
            chance = run.random.random()
            if chance < 0.05:
                run.do(UpdateAccount(number, auto_realize_pnl=False), number)
            elif chance < 0.09:
                run.do(UpdateAccount(number, auto_lend=True), number)
            elif chance < 0.14:
                run.do(UpdateAccount(number, auto_borrow_settlements=False), number)
            run.do(UpdateAccount(number, leverage_limit=20 * RATE_SCALE), number)
        for number in self.lending_longs:
            run.do(UpdateAccount(number, auto_lend=False), number)
        for number in self.bears:
            run.do(UpdateAccount(number, leverage_limit=20 * RATE_SCALE), number)

    def live(self, bar: Bar) -> None:
        """One minute: three prices, quotes, a few traders, everything that falls due."""
        run = self.run
        start_us = run.at_us
        if run.minute % 1_440 == 0:
            self._come_back()
        # Against the way it went first, then its extreme, then where it ended.
        path = (bar.low, bar.high, bar.close) if bar.close > bar.open else (bar.high, bar.low, bar.close)
        if abs(bar.close - bar.open) > WILD * bar.open or (bar.high - bar.low) > 2 * WILD * bar.open:
            self.quiet_until = run.minute + QUIET_MINUTES
        for part, cents in enumerate(path):
            run.do(SetPrices(self._prices(cents)))
            if part == 0:
                self._quote()
                self._trade()
                self._sell_short()
                self._unwind()
            run.pass_time(start_us + (part + 1) * MINUTE_US // len(path))
        if run.minute % 60 == 30:
            most = limits.max_borrow(run.state, run.state.subaccounts[self.borrower], self.btc, run.at_us + 1)
            if most:
                run.do(BorrowLend(self.borrower, self.btc, LendingSide.BORROW, most), self.borrower)
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
                self._deposit(number, asset, atoms)
        return number

    def _deposit(self, number: int, asset: int, atoms: int) -> None:
        text = f"{number}/{self.run.state.sequence}"
        self.run.do(CreditDeposit(1, text, 0, number, number, asset, atoms, 1, "block", True))

    def _come_back(self) -> None:
        """A new day: who lost what the part asks for, or was paid out, brings it again, and providers that hold nothing
        any more stand behind again. Without, the month's second half would happen to nobody.
        """
        run, state = self.run, self.run.state
        for number in self.providers:
            account = state.subaccounts[number]
            if not account.debts and not any(held.lots for held in account.positions.values()):
                run.do(RegisterBackstop(number, 2_000_000 * USD_SCALE), number)
        for number in self.lenders:
            lent = lending.claim(state, state.subaccounts[number], self.sol, run.at_us)
            missing = 3_500 * SOL_ATOMS - lent // SOL_ATOMS * SOL_ATOMS
            if missing > 500 * SOL_ATOMS:
                self._deposit(number, self.sol, missing)
                run.do(BorrowLend(number, self.sol, LendingSide.LEND, missing), number)
        for number in self.lending_longs:
            missing = BTC_ATOMS // 2 - lending.claim(state, state.subaccounts[number], self.btc, run.at_us)
            if missing > BTC_ATOMS // 4 and number not in state.liquidations:
                self._deposit(number, self.usdc, 1_000 * USDC_ATOMS)
                self._deposit(number, self.btc, missing)
                run.do(BorrowLend(number, self.btc, LendingSide.LEND, missing), number)
        for number in self.bears:
            if self._equity(number) < 2_500 * USD_SCALE and number not in state.liquidations:
                self._deposit(number, self.usdc, 5_000 * USDC_ATOMS)
        for number in range(self.traders[0], self.lending_longs[0]):
            if number in state.liquidations or self._equity(number) > 100 * USD_SCALE:
                continue
            if run.random.random() < 0.2:
                self._deposit(number, self.usdc, 1_000 * USDC_ATOMS)

    def _equity(self, number: int) -> int:
        state = self.run.state
        return margin.sums(state, state.subaccounts[number], self.run.at_us).equity

    def _trader(self) -> int:
        chance, size = self.run.random.random(), self.run.random.choice((500, 1_000, 2_000, 5_000, 10_000))
        if chance < 0.7:
            return self._join("trader", usdc=size)
        if chance < 0.9:
            number = self._join("trader", usdc=size // 5)
            self._deposit(number, self.sol, size * SOL_ATOMS // 170)
            return number
        number = self._join("trader", usdc=size // 5)
        self._deposit(number, self.btc, size * BTC_ATOMS // 46_000)
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
                                           (self.sol_spot, self.sol, 6_000)):
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
                if self.sol in account.debts:
                    self._buy_back(number)
                else:
                    order = self._spot_order(number, Side.ASK, run.random.randrange(50, 800))
                    run.do(order, number)
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

    def _sell_short(self) -> None:
        """Bears sell all the borrowed SOL that margin allows; now and then one buys everything back."""
        run, state = self.run, self.run.state
        for number in self.bears:
            if number in state.liquidations or run.random.random() > 0.1:
                continue
            if self.sol in state.subaccounts[number].debts and run.random.random() < 0.05:
                self._buy_back(number)
            else:
                lots = limits.max_order(state, self._spot_order(number, Side.ASK, 1), run.at_us)
                if lots:
                    run.do(self._spot_order(number, Side.ASK, lots), number)

    def _unwind(self) -> None:
        """Providers get rid of what they took over, a fifth of a bitcoin a minute, what they owe once in ten."""
        run, state = self.run, self.run.state
        for number in self.providers:
            account = state.subaccounts[number]
            if number in state.liquidations:
                continue
            held = account.positions.get(self.perp)
            if held is not None and held.lots:
                self._take(number, Side.ASK if held.lots > 0 else Side.BID, min(2_000, abs(held.lots)), True)
            if self.sol in account.debts and run.random.random() < 0.1:
                self._buy_back(number)

    def _buy_back(self, number: int) -> None:
        run, state = self.run, self.run.state
        owed = lending.debt(state, state.subaccounts[number], self.sol, run.at_us)
        lot_atoms = state.markets[self.sol_spot].parameters.lot_atoms
        # One lot in a hundred more, for the fee, which is taken of what is bought.
        run.do(self._spot_order(number, Side.BID, owed * 101 // (100 * lot_atoms) + 1), number)

    def _spot_order(self, number: int, side: Side, lots: int) -> PlaceOrder:
        """SOL against USDC at most half a percent off the index, out of a loan, back into it."""
        tick = self.run.state.markets[self.sol_spot].parameters.tick_price
        price = self.run.state.prices[self.sol] * (1_005 if side is Side.BID else 995) // (1_000 * tick)
        return PlaceOrder(
            number,
            self.sol_spot,
            side,
            OrderType.LIMIT,
            TimeInForce.IOC,
            price,
            lots,
            auto_lend_redeem=True,
            auto_borrow=True,
            auto_borrow_repay=True,
        )

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
                key, signature, text = signer
                request = SignedRequest(key, signature, text, 1_000, 60_000, 1_000)
            outcome = apply(twin.state, twin.state.sequence + 1, at_us, decode(payload), request)
            twin._seal(outcome)
            twin.sealed.clear()
    answer.put((twin.head.hex(), snapshot.state_hash(twin.state).hex()))


def simulate(found: list[Bar], traders: int, seed: int, log: Any = None) -> tuple[Run, Month]:
    """The month, or its first minutes; each minute's commands go to `log` too."""
    began = time.monotonic()
    run = Run(seed)
    month = Month(run, traders)
    month.begin(found[0])
    for run.minute, bar in enumerate(_progress(found)):
        month.live(bar)
        if run.minute % SAMPLE_MINUTES == 0:
            run.samples.append(month.sample())
        if run.minute % 1_440 == 0:
            # What there is by now stays: the collector need not go through two thousand accounts again and again.
            gc.collect()
            gc.freeze()
            if not sys.stderr.isatty():
                day, seconds = run.minute // 1_440, time.monotonic() - began
                stages = {stage: run.stages[stage] for stage in STAGES}
                text = f"day {day} of {len(found) / 1_440:.1f} after {seconds:.0f} s: {stages}"
                print(text, file=sys.stderr, flush=True)
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
        "ladder": {f"{stage}: {meaning}": run.stages[stage] for stage, meaning in STAGES.items()},
        "stagesNeverTaken": [stage for stage in STAGES if not run.stages[stage]],
        "liquidationEvents": dict(sorted(run.stages.items())),
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
    parser.add_argument("--minutes", type=int, help="only the first so many; then not every stage has to be taken")
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
    whole = bars(options.bars)
    found = whole[: options.minutes]
    run, month = simulate(found, options.traders, options.seed, log)
    report = summary(run, month)
    report["seconds"] = round(time.monotonic() - began)
    options.out.mkdir(parents=True, exist_ok=True)
    plot(run, options.out / "report.png")
    if answer is not None:
        report["replayIsIdentical"] = answer.get() == (report["journalHead"], report["stateHash"])
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    wrong = _wrong(report, len(found) == len(whole))
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


def _wrong(report: dict[str, Any], is_whole: bool) -> list[str]:
    """What makes the run a failure, each in a sentence."""
    found = []
    if not report.get("replayIsIdentical", True):
        found.append("The replay from the commands alone ended in another journal or another state.")
    if report["lendersHoles"]:
        found.append(f"Lenders still lack {report['lendersHoles']}.")
    if is_whole and report["stagesNeverTaken"]:
        found.append(f"Stages of the liquidation ladder never taken: {', '.join(report['stagesNeverTaken'])}.")
    return found



if __name__ == "__main__":
    sys.exit(main())
