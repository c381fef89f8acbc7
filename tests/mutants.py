"""Known bugs, planted one by one: each must turn the tests that are named with it red.   `make mutants`

A mutant is a change of one place in one file. It is made in a temporary copy of the tree; the real one is never touched.
`python -m tests.mutants [--only NAME …] [--jobs 2]`
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("ledger", "engine", "chains", "por", "api", "tools", "alembic", "web", "tests", "docs")
BOOK = "tests/engine/test_book.py"
ORDERS = "tests/engine/test_orders.py"
MONEY = "tests/engine/test_fees_and_bands.py"
SNAPSHOT = "tests/engine/test_snapshot.py"
MARKETS = "tests/engine/test_markets.py"
FORMULAS = "tests/engine/formulas"
YIELDS = "tests/engine/test_yields.py"
PRICING = "tests/engine/test_pricing.py"
PERPETUAL_PRICES = "tests/engine/test_pricing_perpetuals.py"
FUNDING = "tests/engine/test_funding.py"
TICK = "tests/engine/test_tick.py"
CONVERSIONS = "tests/engine/test_conversions.py"
POOLS = "tests/por/test_pools.py"
LEAVES = "tests/engine/test_liabilities.py"
TRADERS = "tests/engine/test_perpetual_liabilities.py"
MARKETS = "tests/por/test_markets.py"
LIQUIDITY_POOLS = "tests/por/test_liquidity_pools.py"
POOL_LEAVES = "tests/engine/test_pool_liabilities.py"
POOL_LEDGER = "tests/ledger/test_liquidity_pools.py"
CHAINS_PAY = "tests/engine/test_liquidity.py"
GOLDEN = "tests/replay"
LOANS = "tests/engine/test_lending.py"
MARGIN = "tests/engine/test_margin.py"
SPOT_MARGIN = "tests/engine/test_spot_margin.py"
MARGIN_MACHINE = "tests/machine/test_margin_machine.py"
ATTACKS = "tests/engine/test_attacks_on_margin.py"
TRIGGERS = "tests/engine/test_triggers.py"
STRATEGIES = "tests/engine/test_strategies.py"
RFQ = "tests/engine/test_rfq.py"
FILL_OR_KILL = "tests/engine/test_fill_or_kill.py"
WAITING = "tests/engine/test_waiting_snapshot.py"
ADL = "tests/engine/test_deleveraging.py"
BACKSTOP = "tests/engine/test_backstop.py"
VIRTUAL = "tests/engine/test_virtual.py"
DEBTS = "tests/engine/test_bankruptcy.py"
LENDER_ADL = "tests/engine/test_lender_adl.py"
INSURANCE = "tests/engine/test_insurance.py"
LADDER_FORMULAS = "tests/engine/formulas/test_liquidation.py"
TIMEOUT_SECONDS = 300


class Mutant(NamedTuple):
    """`old` becomes `new` at its only place in `path`; `tests` must notice."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


class Verdict(NamedTuple):
    mutant: Mutant
    is_caught: bool
    by: str
    """The first test that failed, or what went wrong."""


MUTANTS = (
    # Prices   [P-1, P-2]
    Mutant("a source counts as it is, unclamped", "engine/formulas/prices.py",
           "sum(min(max(price, least), most) * weight", "sum(price * weight", (FORMULAS,)),
    Mutant("the moving average takes the mid at once", "engine/formulas/prices.py",
           "(mid - index - deviation) // DEVIATION_SECONDS", "(mid - index - deviation)", (FORMULAS, PRICING)),
    Mutant("the mark leaves its bound", "engine/formulas/prices.py",
           "    return min(max(mark, least), most)", "    return max(mark, least)", (FORMULAS, PRICING)),
    Mutant("a silent book keeps its deviation", "engine/pricing.py",
           "        pricing.deviation = 0", "        pass", (PRICING,)),
    Mutant("a stale quote is a source", "engine/pricing.py",
           "        if expires_us >= now_us:", "        if expires_us:", (PRICING,)),
    Mutant("a stale index stays live", "engine/pricing.py",
           "        return at_us <= state.pricing[asset_id].live_until_us", "        return True", (PRICING,)),
    Mutant("an index that dies on the way lives to the end of its samples", "engine/pricing.py",
           "    live = min(max(one.live_until_us // SECOND_US - first + 1, 0), samples)", "    live = samples", (PRICING,)),
    Mutant("the mean keeps marks older than its seconds", "engine/pricing.py",
           "        pricing.total += mark - old", "        pricing.total += mark", (PRICING,)),
    Mutant("a book without a price takes orders", "engine/orders.py",
           "    if is_cancel_only(state, market):", "    if False:", (PRICING,)),
    # Perpetuals' marks, bands, funding   [P-2, P-12 … P-14, P-20, P-21]
    Mutant("perpetuals: a mark leaves the perpetual's own bound for the market's", "engine/pricing.py",
           "        perpetual.mark_bound,", "        parameters.mark_bound,", (PERPETUAL_PRICES,)),
    Mutant("perpetuals: only the last seconds of many count", "engine/pricing.py",
           "or left < MARK_SAMPLES or one.perpetual is not None:", "or left < MARK_SAMPLES:", (PERPETUAL_PRICES,)),
    Mutant("perpetuals: the bounds of the last price are kept", "engine/pricing.py",
           "    state.valuations.bounds.clear()", "    pass", (PERPETUAL_PRICES,)),
    Mutant("perpetuals: the bounds of a market's old parameters are kept", "engine/markets.py",
           "    state.marks_version += 1\n    state.valuations.bounds.clear()", "    pass", (PERPETUAL_PRICES,)),
    Mutant("perpetuals: a premium without an index holds takers", "engine/bands.py",
           "        if premium.last300[state.sampled_second % MARK_SAMPLES] is not None:", "        if True:", (PERPETUAL_PRICES,)),
    Mutant("perpetuals: a liquidation fills no further than a taker", "engine/bands.py",
           "else formulas.twice_as_wide(parameters.bands)", "else parameters.bands", (PERPETUAL_PRICES,)),
    Mutant("perpetuals: a charge is rounded down", "engine/formulas/funding.py",
           "    return mul_div_down(-rate * mark_lot, lots, RATE_SCALE)",
           "    return -mul_div_down(rate * mark_lot, lots, RATE_SCALE)", (FORMULAS,)),
    Mutant("perpetuals: the column rounds the other way", "engine/funding.py",
           "    return lots * whole + lots * rest // RATE_SCALE", "    return lots * whole - lots * -rest // RATE_SCALE", (FORMULAS, FUNDING)),
    Mutant("perpetuals: an interval keeps the samples of the last", "engine/funding.py",
           "    market.premium.total = market.premium.samples = 0", "    pass", (FUNDING,)),
    Mutant("perpetuals: the clamp lets any interest through", "engine/formulas/funding.py",
           "min(max(interest - mean, -clamp), clamp)", "interest - mean", (FORMULAS, FUNDING)),
    Mutant("perpetuals: shorts pay longs", "engine/funding.py",
           "        column: Any = -received[order]", "        column: Any = received[order]", (FUNDING,)),
    Mutant("perpetuals: the rows are another's", "engine/funding.py",
           "        column: Any = -received[order]", "        column: Any = -received", (FUNDING,)),
    # Matching   [S-7]
    Mutant("a taker fills one tick beyond its limit", "engine/matching.py",
           "        if key > bound_key:", "        if key > bound_key + 1:", (ORDERS,)),
    Mutant("self-trades are keyed by subaccount", "engine/matching.py",
           "            if maker.subaccount.user is user:", "            if maker.subaccount.user is None:", (ORDERS,)),
    Mutant("RejectBoth leaves the maker", "engine/matching.py",
           "if self_trade == _REJECT_MAKER or self_trade == _REJECT_BOTH:", "if self_trade == _REJECT_MAKER:", (ORDERS,)),
    Mutant("fill-or-kill counts own orders", "engine/matching.py",
           "            if maker.subaccount.user is not user:", "            if True:", (ORDERS,)),
    Mutant("a level forgets what it filled", "engine/matching.py",
           "                maker.executed_lots += lots\n                level.lots -= lots",
           "                maker.executed_lots += lots", (BOOK,)),
    Mutant("last come, first served", "engine/book.py",
           "            last = level.last\n            order.previous = last\n            last.next = order  # type: ignore[union-attr]",
           "            order.next = level.first\n            level.first.previous = order\n            level.first = order\n"
           "            order, level.last = level.last, level.last", (ORDERS, BOOK)),
    Mutant("cancelling takes the whole size off the level", "engine/book.py",
           "        level = self.levels[order.price_ticks]\n        level.lots -= order.lots - order.executed_lots",
           "        level = self.levels[order.price_ticks]\n        level.lots -= order.lots", (BOOK, ORDERS)),
    Mutant("the heap is never compacted", "engine/book.py",
           "if len(heap) > _SMALL_HEAP and len(heap) > 2 * len(levels):", "if False:", (BOOK,)),
    Mutant("a level that came back is there twice", "engine/book.py",
           "if key != previous and key * sign in levels:", "if key * sign in levels:", (BOOK,)),
    # The life of an order   [S-1, P-10, P-11, A-11]
    Mutant("cancelling does not free what was locked", "engine/orders.py",
           "order.subaccount.subaccount_id, asset_id, -atoms)", "order.subaccount.subaccount_id, asset_id, 0)", (ORDERS,)),
    Mutant("post-only takes", "engine/orders.py",
           "    if taken is not None and command.post_only:", "    if False:", (ORDERS,)),
    Mutant("fill-or-kill fills partly", "engine/orders.py", "    if wish.is_killed:", "    if False:", (ORDERS,)),
    Mutant("what crosses beyond the impact band rests", "engine/orders.py",
           "if stop is Stop.EMPTY or opposite.heap[0] > limit_key:", "if True:", (MONEY,)),
    Mutant("a market buy by quote needs only what it finds", "engine/orders.py",
           "command.quote_atoms or proceeds, ahead.lots", "proceeds, ahead.lots", (ORDERS,)),
    Mutant("a client id is never free again", "engine/orders.py",
           "        del subaccount.client_ids[order.client_id]", "        pass", (ORDERS,)),
    Mutant("a repeated client id places again", "engine/orders.py",
           "            if asks_the_same(first, command):\n                return first.view()", "            if False:\n                pass",
           (ORDERS,)),
    Mutant("locked funds are spent twice", "engine/clearing.py",
           "    free = -balance - subaccount.reserved.get(asset_id, 0)", "    free = -balance", (ORDERS,)),
    Mutant("the limit band has no lower end", "engine/formulas/bands.py",
           "return numerator * minimum <= price <= numerator * maximum", "return price <= numerator * maximum", (MONEY,)),
    Mutant("the sell bound is rounded down", "engine/formulas/bands.py",
           "return mul_div_up(best_bid, minimum, RATE_SCALE)", "return mul_div_down(best_bid, minimum, RATE_SCALE)", (MONEY,)),
    Mutant("a notional wraps at 64 bits", "engine/clearing.py",
           "if price * lots * parameters.tick_value_atoms > INT64_MAX:", "if False:", (MONEY,)),
    Mutant("closing a market leaves its orders", "engine/markets.py",
           "    if parameters.state == BookState.CLOSED:", "    if False:", (ORDERS,)),
    Mutant("a market's tick may change", "engine/markets.py",
           '        _require_unchanged(known.tick_price, parameters.tick_price, "tick")\n', "", (MARKETS,)),
    Mutant("nobody checks that initial margin is above maintenance", "engine/markets.py",
           "    if 4 * imf_base < 5 * mmf_base:", "    if False:", (MARKETS,)),
    # Extra yields   [Y-1, Y-3, C-3]
    Mutant("who lends late earns from the period's beginning", "engine/yields.py",
           "            pool.period, now_ms, pool.rate_prefix, seen=",
           "            pool.period, pool.period * length, pool.rate_prefix, seen=", (YIELDS,)),
    Mutant("the residue of a yield is dropped", "engine/yields.py",
           "divmod(pool.pending_yield * RATE_ONE + pool.residue, weight)",
           "divmod(pool.pending_yield * RATE_ONE, weight)", (YIELDS,)),
    Mutant("a lender's fraction of an atom is dropped", "engine/yields.py",
           "divmod(time.carry + _earned(", "divmod(_earned(", (YIELDS,)),
    Mutant("the period of the last touch is paid twice", "engine/yields.py",
           "(pool.rate_prefix - time.prefix - rate * length)", "(pool.rate_prefix - time.prefix)", (YIELDS,)),
    Mutant("who has left is forgotten before the period ends", "engine/yields.py",
           "        time.share_ms += shares_of(", "        time.share_ms = shares_of(", (YIELDS,)),
    Mutant("periods without a yield count on", "engine/yields.py",
           "        pool.period, pool.share_ms, pool.share_since_ms = period, 0, period * length",
           "        pool.period = period", (YIELDS,)),
    Mutant("staked coins stay idle", "engine/staking.py",
           "    pool.staked += atoms\n", "", (YIELDS,)),
    Mutant("the pool's cached totals outlive a stake", "engine/staking.py",
           "    pool.projected_ms = -1\n", "", (YIELDS,)),
    Mutant("margins forget what a lender has to collect", "engine/margin.py",
           "            equity += earned * price // in_usd", "            pass", (YIELDS,)),
    Mutant("a former lender's yield is lost with a snapshot", "engine/snapshot.py",
           "        subaccount.asset_ids.update(dict.fromkeys(subaccount.share_times))", "        pass", (YIELDS,)),
    # Lending and margin   [B-1 … B-4, B-7, C-1, C-2, M-2, M-3, M-8, M-9]
    Mutant("the exponential is cut instead of rounded", "engine/formulas/lending.py",
           "            return nearest", "            return value >> bits", (FORMULAS,)),
    Mutant("the exponential trusts its first digits", "engine/formulas/lending.py",
           "        if nearest == (value - error + half) >> bits:", "        if bits:", (FORMULAS,)),
    Mutant("ln 2 is short of its last digits", "engine/formulas/lending.py",
           "    return _ln_near_one(2, 1, bits + 32) >> 32", "    return _ln_near_one(2, 1, bits // 2) << bits - bits // 2", (FORMULAS,)),
    Mutant("one squaring is missing", "engine/formulas/lending.py",
           "for _ in range(8):", "for _ in range(7):", (FORMULAS,)),
    Mutant("utilization is not capped", "engine/formulas/lending.py",
           "return (borrowed, total) if borrowed < total else (1, 1)", "return borrowed, total", (FORMULAS,)),
    Mutant("lenders earn a rounded-up rate", "engine/formulas/lending.py",
           "return mul_div_down(borrow_rate * (FEE_ONE - fee), numerator", "return mul_div_up(borrow_rate * (FEE_ONE - fee), numerator", (FORMULAS,)),
    Mutant("the carry of interest is dropped", "engine/formulas/lending.py",
           "divmod(borrowed * rate * elapsed_ms + carry, _ACCRUAL_ONE)", "divmod(borrowed * rate * elapsed_ms, _ACCRUAL_ONE)", (FORMULAS,)),
    Mutant("the carry of the fee is dropped", "engine/formulas/lending.py",
           "divmod(interest * fee_share + fee_carry, FEE_ONE)", "divmod(interest * fee_share, FEE_ONE)", (FORMULAS,)),
    Mutant("claims are rounded up", "engine/formulas/lending.py",
           "return mul_div_down(shares, lent, all_shares) if", "return mul_div_up(shares, lent, all_shares) if", (FORMULAS,)),
    Mutant("debts are rounded down", "engine/formulas/lending.py",
           "return mul_div_up(shares, borrowed, all_shares) if", "return mul_div_down(shares, borrowed, all_shares) if", (FORMULAS,)),
    Mutant("lending mints too little", "engine/formulas/lending.py",
           "return mul_div_up(atoms, all_shares, lent)\n\n\ndef borrow_mint", "return mul_div_down(atoms, all_shares, lent)\n\n\ndef borrow_mint", (FORMULAS,)),
    Mutant("borrowing mints too much", "engine/formulas/lending.py",
           "return mul_div_down(atoms, all_shares, borrowed)\n\n\ndef redeem_burn", "return mul_div_up(atoms, all_shares, borrowed)\n\n\ndef redeem_burn", (FORMULAS,)),
    Mutant("a redemption burns too little", "engine/formulas/lending.py",
           "return mul_div_up(atoms, all_shares, lent)\n\n\ndef repay_burn", "return mul_div_down(atoms, all_shares, lent)\n\n\ndef repay_burn", (FORMULAS,)),
    Mutant("a repayment burns too much", "engine/formulas/lending.py",
           "return mul_div_down(atoms, all_shares, borrowed)\n\n\ndef is_at", "return mul_div_up(atoms, all_shares, borrowed)\n\n\ndef is_at", (FORMULAS,)),
    Mutant("at the threshold is not over it", "engine/formulas/lending.py",
           "return borrowed * RATE_SCALE >= fraction * total", "return borrowed * RATE_SCALE > fraction * total", (FORMULAS,)),
    Mutant("the bound passes the maximum", "engine/formulas/lending.py",
           "return min(maximum, high + mul_div_down", "return max(high, high + mul_div_down", (FORMULAS,)),
    Mutant("the initial margin forgets 1.25 × MMF", "engine/formulas/margin.py",
           "imf = max(4 * imf, 4 * base * ROOT_SCALE, 5 * mmf)", "imf = max(4 * imf, 4 * base * ROOT_SCALE)", (FORMULAS,)),
    Mutant("the short cut of the margin line forgets 1.25 × MMF", "engine/formulas/margin.py",
           " and 5 * mmf_base <= 4 * base:", ":", (FORMULAS,)),
    Mutant("the leverage limit is no margin", "engine/formulas/margin.py",
           "base = imf_base if imf_base > leverage_base else leverage_base", "base = imf_base", (FORMULAS,)),
    Mutant("a notional is rounded down", "engine/formulas/margin.py",
           "return -(-atoms * price // (unit * _PRICE_IN_USD))", "return atoms * price // (unit * _PRICE_IN_USD)", (FORMULAS,)),
    Mutant("a sell below the mark loses nothing", "engine/formulas/margin.py",
           "        worse = -worse\n", "        worse = 0\n", (FORMULAS,)),
    Mutant("the backstop takes the lower fraction", "engine/formulas/margin.py",
           "if reduced * divisor > mmf_num * RATE_SCALE:", "if reduced * divisor < mmf_num * RATE_SCALE:", (FORMULAS,)),
    Mutant("a weight ignores the size", "engine/formulas/collateral.py",
           "penalty * root)", "penalty)", (FORMULAS,)),
    Mutant("collateral is rounded up", "engine/formulas/collateral.py",
           "return atoms * price * weight * USD_SCALE // (unit", "return 1 + atoms * price * weight * USD_SCALE // (unit", (FORMULAS,)),
    # Money   [A-1, F-1 … F-4]
    Mutant("fees are rounded down", "engine/formulas/fees.py",
           "return -(-received_atoms * fee_rate // RATE_SCALE)", "return received_atoms * fee_rate // RATE_SCALE", (MONEY,)),
    Mutant("the maker pays the taker's fee", "engine/settlement.py",
           "spot_rates(state, maker_user, hour).maker_rate", "spot_rates(state, maker_user, hour).taker_rate", (MONEY,)),
    Mutant("half of the maker's lock stays", "engine/settlement.py",
           "locked = reserved[locked_asset] - unlocked", "locked = reserved[locked_asset] - unlocked // 2", (ORDERS,)),
    Mutant("the insurance fund's share is lost", "engine/settlement.py",
           "        postings.append((INSURANCE_FUND, asset, -insured))", "        pass", (MONEY,)),
    Mutant("a maker's volume does not count", "engine/settlement.py",
           "        add_volume(maker_user, hour, usd)", "        pass", (MONEY,)),
    Mutant("volume is forgotten an hour early", "engine/fees.py",
           "bucket < hour - VOLUME_HOURS", "bucket <= hour - VOLUME_HOURS", (MONEY,)),
    Mutant("a deposit is credited twice", "engine/custody.py",
           "require(key not in state.deposits,", "require(True,", ("tests/engine/test_custody.py",)),
    # Money markets and margin   [B-4 … B-14, M-1 … M-12, S-1 … S-8]
    Mutant("borrowing ignores the throttle's bound", "engine/lending.py",
           "    if formulas.is_over(after_borrowed, after_lent, now.fees, pool.bound):", "    if False:", (LOANS,)),
    Mutant("a pool lends what it does not have", "engine/lending.py",
           "    if after_lent + now.fees - after_borrowed - now.staked < 0:", "    if False:", (LOANS, MARGIN_MACHINE, YIELDS)),
    Mutant("the fraction of an atom is lost at every accrual", "engine/lending.py",
           "    pool.carry, pool.fee_carry = now.carry, now.fee_carry", "    pool.carry, pool.fee_carry = 0, 0", (LOANS, MARGIN_MACHINE, SNAPSHOT)),
    Mutant("crumbs of shares may be kept", "engine/lending.py",
           "    return atoms if left >= LEAST_SHARES else claim", "    return atoms", (LOANS, ATTACKS)),
    Mutant("the throttle never moves", "engine/lending.py", "            pool.bound = bound\n", "", (LOANS,)),
    Mutant("autoLend lends before it repays", "engine/lending.py",
           "    repaid = min(free, owed)", "    repaid = 0", (MARGIN, SPOT_MARGIN, LOANS)),
    Mutant("a small debt stays for ever", "engine/loans.py",
           "    for number, asset_id in sorted(state.small_debts):", "    for number, asset_id in ():", (LOANS,)),
    Mutant("a manual loan asks for no margin", "engine/loans.py",
           "        margin.require_outflow(state, subaccount, at_us, {asset_id: (atoms, -redeemed, borrowed, quantity)})", "        pass", (ATTACKS,)),
    Mutant("a withdrawal asks for no margin", "engine/outflows.py",
           "    if taken.borrowed or subaccount.margined or margin.has_provisional(state, subaccount):", "    if False:", (LOANS, MARGIN)),
    Mutant("a virtual account closes itself below zero", "engine/perpetuals.py",
           "(not after.notional and after.equity >= 0)", "not after.notional", ("tests/engine/test_collusion.py",)),
    Mutant("lent assets that pass on count as redeemed", "engine/outflows.py",
           "0 if as_shares else taken.lent, taken.borrowed)", "taken.lent, taken.borrowed)", (LOANS,)),
    Mutant("only the mark counts for what leaves", "engine/margin.py",
           "    for is_stressed in (False, True):", "    for is_stressed in (False,):", (MARGIN, LOANS)),
    Mutant("provisional deposits count for what leaves", "engine/margin.py",
           "        equity = after.equity - provisional\n", "        equity = after.equity\n", (LOANS,)),
    Mutant("a buy that repays pays its fee in base", "engine/spot_margin.py",
           "            pays += fee_in_quote\n        else:", "            fee_asset, fee = base, fee_atoms(base_atoms, fee_rate)\n            gets -= fee\n        else:", (SPOT_MARGIN,)),
    Mutant("what comes in repays nothing", "engine/spot_margin.py",
           "    repaid = min(owed, gets)", "    repaid = 0", (SPOT_MARGIN, MARGIN)),
    Mutant("a maker is not judged", "engine/matching.py",
           "            if is_judged or maker.flags > PLAIN_FLAGS or maker.subaccount.margined:", "            if is_judged:", (SPOT_MARGIN,)),
    Mutant("fill or kill counts on anybody", "engine/matching.py",
           "                if only_sure and (", "                if False and (", (SPOT_MARGIN,)),
    Mutant("a lower leverage limit is not looked at", "engine/accounts.py",
           "    if after.is_exposed and equity <= after.initial:", "    if False:", (MARGIN,)),
    Mutant("a reversed deposit's rest is no debt", "engine/custody.py",
           "        subaccount.receivables[deposit.asset_id] = None\n        subaccount.judge_by_margin()\n", "", (LOANS,)),
    Mutant("a snapshot forgets who promised what", "engine/snapshot.py",
           "            subaccount.promised[asset] = subaccount.promised.get(asset, 0) + atoms\n", "            pass\n", (SNAPSHOT,)),
    # State and replay   [A-6, A-9 … A-11]
    Mutant("a snapshot forgets the last price", "engine/snapshot.py",
           "        market.last_price_ticks = row.last_price_ticks\n", "", (SNAPSHOT, GOLDEN)),
    Mutant("a snapshot forgets the remembered requests", "engine/snapshot.py",
           "    state.requests = {key: (until_ms, _reply(raw)) for key, until_ms, raw in image.requests}\n", "", (SNAPSHOT,)),
    Mutant("trade ids skip one", "engine/settlement.py",
           "        trade_id += 1\n", "        trade_id += 2\n", (ORDERS, GOLDEN)),
    Mutant("provisional funds are counted as available", "engine/liabilities.py",
           "amounts += (free - provisional, in_orders,", "amounts += (free, in_orders,", (SNAPSHOT,)),
    # The ledger's encoding  
    Mutant("postings are little-endian", "ledger/journal.py",
           '_POSTING = Struct(">QIqQ")', '_POSTING = Struct("<QIqQ")', ("tests/ledger/test_encoding.py",)),
    Mutant("a journal transaction does not name the one before", "ledger/journal.py",
           "encoding = encode_transaction(previous_hash, seq,", "encoding = encode_transaction(GENESIS_HASH, seq,",
           ("tests/ledger/test_encoding.py",)),
    Mutant("leaves and nodes share a domain", "ledger/merkle.py",
           'paired = [sha256(b"\\x01" + level[i] + level[i + 1])', 'paired = [sha256(b"\\x00" + level[i] + level[i + 1])',
           ("tests/ledger/test_merkle.py", "tests/ledger/test_encoding.py")),
    # Proof of reserves  
    Mutant("a parent commits to the sum only", "por/tree.py",
           "        + vector_bytes(left.totals)\n", "        + vector_bytes(totals)\n", ("tests/por",)),
    Mutant("sums wrap silently", "por/tree.py", "        if total >= COLUMN_LIMIT:", "        if False:", ("tests/por",)),
    Mutant("a leaf's salt is the same in every epoch", "por/leaves.py",
           'TAG_SALT + epoch.to_bytes(8, "big")', 'TAG_SALT + (1).to_bytes(8, "big")', ("tests/por",)),
    Mutant("the verifier accepts another user's proof", "por/verifier.py",
           'raise NotVerified(f"this proof is of user {leaf[\'userId\']}, not of user {user}")', "pass",
           ("tests/por/test_verifier.py",)),
    Mutant("claims may fall short of the pool by any amount", "por/conservation.py",
           "return 0 <= difference < max(1, holders)", "return 0 <= difference", (POOLS,)),
    Mutant("the verifier lets debts fall short of the pool", "por/verifier.py",
           "if not 0 <= debts - pool", "if not -9 <= debts - pool", (POOLS,)),
    Mutant("the verifier believes what a leaf says is lent", "por/verifier.py",
           'if amount_of[f"{asset}.{column}"] != worth:', "if False:", (POOLS,)),
    Mutant("a pool may hide from the header", "por/verifier.py",
           "and kind in POOL_ACCOUNTS and asset not in homes", "and False", (POOLS,)),
    Mutant("loans count as reserves", "por/header.py",
           "mul_div_down(reserves, RATIO_SCALE, liabilities)", "mul_div_down(reserves + loans, RATIO_SCALE, liabilities)", (POOLS,)),
    Mutant("an epoch shows interest that the ledger does not have", "engine/clock.py",
           "        lending.begin(state, outcome, asset_id)\n", "        pass\n", (LEAVES,)),
    Mutant("who owes more than there is looks active", "engine/liabilities.py",
           "is_liquidated = now.is_in_liquidation or number in state.liquidations", "is_liquidated = False", (LEAVES,)),
    Mutant("a leaf's cost is counted from the last settled mark", "engine/liabilities.py",
           "cost = held.cost - held.lots * market.settled", "cost = held.cost", (TRADERS,)),
    Mutant("more may be long than short", "por/conservation.py", "    if longs != shorts:", "    if False:", (MARKETS,)),
    Mutant("the verifier lets more be long than short", "por/verifier.py",
           "    if longs != shorts:", "    if False:", (MARKETS,)),
    Mutant("the verifier believes what a leaf says is gained", "por/verifier.py",
           "        if pnl != gained:", "        if False:", (MARKETS,)),
    Mutant("the fund may lend for nobody", "por/verifier.py", "        if fund != of_users:", "        if False:", (MARKETS,)),
    Mutant("a liquidity pool's units need not be its providers'", "por/conservation.py",
           "        if sums != atoms:", "        if False:", (LIQUIDITY_POOLS,)),
    Mutant("a liquidity pool's line needs no account of the ledger", "por/conservation.py",
           "        if booked != -users[asset]:", "        if False:", (LIQUIDITY_POOLS,)),
    Mutant("the verifier lets a liquidity pool's book say anything", "por/verifier.py",
           "            if booked != -sign * line[kept]:", "            if False:", (LIQUIDITY_POOLS,)),
    Mutant("the verifier believes what a leaf says is kept for longs", "por/verifier.py",
           "            if own.get(column, 0) != amount_of[column]:", "            if False:", (LIQUIDITY_POOLS,)),
    Mutant("nobody is owed the coins of liquidity pools", "por/header.py",
           "in amm_coins(image.amms).items():", "in ():", (LIQUIDITY_POOLS,)),
    Mutant("a leaf shows only one side of what longs owe", "engine/liabilities.py",
           "        balances.get(owed | native_owed(pool_id), 0),", "        0,", (POOL_LEAVES,)),
    Mutant("liquidity pools may keep coins that are not there", "ledger/invariants.py",
           "            if coins < kept:", "            if False:", (POOL_LEDGER,)),
    Mutant("what positions owe is no part of what units are worth", "ledger/liquidity.py",
           " - book.get(external_owed(pool_id), 0)", "", (POOL_LEDGER,)),
    Mutant("unsettled equity may come from nowhere", "ledger/invariants.py",
           "waiting = sum([", "waiting = 0 * sum([", ("tests/ledger/test_perpetual_invariants.py",)),
    Mutant("the fund's shares need not be its users' claims", "ledger/invariants.py",
           "            if held != claimed:", "            if False:", ("tests/ledger/test_perpetual_invariants.py",)),
    # Settlement   [S-10 … S-15]
    Mutant("a tick forgets what was traded since the last", "engine/tick.py",
           "            net[ids] += costs\n", "", (TICK,)),
    Mutant("whoever is owed pays in cash first", "engine/tick.py",
           "own = min(atoms, max(0, subaccount.unsettled + self.unsettled.get(number, 0)))", "own = 0", (TICK,)),
    Mutant("winners are paid what was not collected", "engine/tick.py",
           "paid = owed_to if payable == want else _shares_of(owed_to, payable, want)", "paid = owed_to", (TICK,)),
    Mutant("64 bits are thought to be enough", "engine/tick.py",
           "    return most < _SAFE\n", "    return True\n", (TICK,)),
    Mutant("a new holder is not put into the columns", "engine/tick.py",
           "    is_new = ~is_known\n", "    is_new = is_known & False\n", (TICK,)),
    Mutant("a pool pays out what it does not have", "engine/tick.py",
           "        missing = -lending.totals(state, state.pools[usdc], self.outcome.at_us).idle\n", "        missing = 0\n", (TICK,)),
    Mutant("the tick does not see who moved USDC since", "engine/posting.py",
           "                cash_moved[account & OWNER_MASK] = None\n", "                pass\n", (TICK,)),
    Mutant("what is locked pays losses", "engine/tick.py",
           "known.held[losers] - known.reserved[losers]", "known.held[losers] - 0", (TICK,)),
    Mutant("money that comes in does not pay what is owed", "engine/transition.py",
           "            tick.pay_unsettled(state, outcome)\n", "            pass\n", (TICK,)),
    Mutant("ticks in between are left out", "engine/clock.py",
           "(tick.is_awaited(state) or state.taken) else horizon\n", "False else horizon\n", (TICK,)),
    Mutant("settlement comes before funding", "engine/clock.py",
           "if state.funding_due_us and funding_us <= horizon and", "if state.funding_due_us and not settles and funding_us <= horizon and", (TICK,)),
    Mutant("collateral is sold below the index floor", "engine/conversions.py",
           "max(1, sell_impact_bound(best, parameters.bands.impact_min), least)", "max(1, sell_impact_bound(best, parameters.bands.impact_min))", (CONVERSIONS,)),
    Mutant("more collateral is sold than is owed", "engine/conversions.py",
           "    low, high = 0, 2 * mul_div_up(missing, 1, price_atoms) + 1\n", "    return 2 * mul_div_up(missing, 1, price_atoms)\n", (CONVERSIONS,)),
    # Which chain pays   [D-1]
    Mutant("coins that are not final pay withdrawals", "engine/state.py",
           "self.hot + max(0, self.unswept - self.provisional) - self.paying", "self.hot + self.unswept - self.paying", (CHAINS_PAY,)),
    Mutant("two withdrawals count on the same coins", "engine/state.py",
           "max(0, self.unswept - self.provisional) - self.paying", "max(0, self.unswept - self.provisional)", (CHAINS_PAY,)),
    Mutant("crumbs count that nobody sweeps", "engine/liquidity.py",
           "(after if after >= least else 0)", "after", (CHAINS_PAY,)),
    Mutant("a chain is offered that would refuse as well", "engine/liquidity.py",
           "        and token.withdraw_enabled\n", "", (CHAINS_PAY,)),
    Mutant("a loaded state forgets what a chain can pay", "engine/snapshot.py",
           "    liquidity.count(state)\n", "", (CHAINS_PAY,)),
    # Trigger orders, strategies, requests for quotes   [S-7, S-9]
    Mutant("a trigger fires a tick early", "engine/triggers.py",
           "while heap and heap[0][0] <= key:", "while heap and heap[0][0] <= key + 1:", (TRIGGERS,)),
    Mutant("the farthest trigger enters first", "engine/triggers.py",
           "key=lambda order: (abs(", "key=lambda order: (-abs(", (TRIGGERS,)),
    Mutant("a trigger at the present price is taken", "engine/triggers.py",
           "if now.floor == ticks == now.ceiling:", "if now.floor == ticks == now.ceiling + 1:", (TRIGGERS,)),
    Mutant("a percentage of the position is rounded up", "engine/firing.py",
           "abs(held.lots) * terms.trigger_percent // RATE_SCALE", "-(-abs(held.lots) * terms.trigger_percent // RATE_SCALE)", (TRIGGERS,)),
    Mutant("both brackets enter", "engine/firing.py",
           "for other in others:", "for other in others[:0]:", (TRIGGERS,)),
    Mutant("a bracket sells what the fee took", "engine/firing.py",
           "lots = min(lots, free // parameters.lot_atoms)", "lots = max(lots, free // parameters.lot_atoms)", (TRIGGERS,)),
    Mutant("brackets do not grow with further fills", "engine/triggers.py",
           "order.lots += lots", "order.lots += 0", (TRIGGERS,)),
    Mutant("slippage bounds nobody", "engine/orders.py",
           "bound_key = min(bound_key, slippage_key)", "bound_key = max(bound_key, slippage_key)", (TRIGGERS,)),
    Mutant("slices come too early", "engine/strategies.py",
           "strategy.next_us + view.interval_ms * 1_000", "strategy.next_us + view.interval_ms * 999", (STRATEGIES,)),
    Mutant("what a slice leaves is lost", "engine/strategies.py",
           "lots = rest // left", "lots = view.lots // (left + 1)", (STRATEGIES,)),
    Mutant("a strategy goes on without money", "engine/strategies.py",
           "if strategy.stopped_by not in _PASSING:", "if False:", (STRATEGIES,)),
    Mutant("any quote may be accepted", "engine/rfq.py",
           "if best is not view:", "if best is None:", (RFQ,)),
    Mutant("value leaves by a quoted price", "engine/rfq.py",
           "margin.require_outflow(state, subaccount, at_us, changes)", "pass", (RFQ,)),
    Mutant("a filled request moves the last price", "engine/rfq.py",
           "    del rfq.quotes[quoted.quote_id]\n    _cancel_quotes", "    market.last_price_ticks = price\n    del rfq.quotes[quoted.quote_id]\n    _cancel_quotes", (RFQ,)),
    Mutant("fill or kill counts on every maker", "engine/fill_or_kill.py",
           "return after.equity - loss - _SLACK_USD > after.initial", "return True", (FILL_OR_KILL,)),
    Mutant("fill or kill counts a maker's fees one by one", "engine/fill_or_kill.py",
           "account.fee += fee_atoms(", "account.fee = fee_atoms(", (FILL_OR_KILL,)),
    Mutant("a loaded state forgets what was triggered", "engine/snapshot.py",
           "state.triggered = {number: waiting[number] for number in image.triggered}", "state.triggered = {}", (WAITING,)),
    Mutant("a loaded state forgets when slices are due", "engine/snapshot.py",
           "strategies.note_due(state)", "pass", (WAITING,)),
    # The end of the ladder   [L-4 … L-6]
    Mutant("ladder: a bankruptcy price is rounded against the counterparty", "engine/formulas/liquidation.py",
           "return max(1, mul_div_half_even(mark * below - above, 1, below * quantum)) * quantum",
           "return max(1, (mark * below - above) // (below * quantum)) * quantum", (LADDER_FORMULAS,)),
    Mutant("ladder: losers with leverage are closed last", "engine/formulas/liquidation.py",
           "return profit * equity, entry * notional", "return profit * notional, entry * equity", (LADDER_FORMULAS,)),
    Mutant("ladder: a counterparty falls under its maintenance", "engine/deleveraging.py",
           "return after.is_in_liquidation or after.is_unpriced", "return after.is_unpriced", (ADL,)),
    Mutant("ladder: debts bear nothing of E", "engine/deleveraging.py",
           "if holding.owed and holding.maintenance:", "if False:", (ADL,)),
    Mutant("ladder: who is in liquidation closes at the bankruptcy price", "engine/deleveraging.py",
           "if counterparty.subaccount_id in state.liquidations or", "if", (ADL,)),
    Mutant("ladder: a loss is charged to the side that lost", "engine/deleveraging.py",
           "is_long_side = liquidation.sides[market.parameters.market_id] < 0",
           "is_long_side = liquidation.sides[market.parameters.market_id] > 0", (ADL,)),
    Mutant("ladder: reduce-only orders keep their size", "engine/deleveraging.py",
           "    _shrink_reducing(state, outcome, counterparty, market)\n", "", (ADL,)),
    Mutant("ladder: collateral passes to the fund for nothing", "engine/deleveraging.py",
           'insurance.move(state, outcome, subaccount, "collateral", paid, asset_id, bought)',
           'insurance.move(state, outcome, subaccount, "collateral", 0, asset_id, bought)', (ADL,)),
    Mutant("ladder: a provider pays nothing for what it receives", "engine/backstop.py",
           "quote_atoms_up(mul_div_up(max(0, equity), risk.backstop_share, RATE_SCALE), unit, usd)", "0", (BACKSTOP,)),
    Mutant("ladder: a provider is bound without its own margin", "engine/backstop.py",
           "after.equity - margin.open_order_loss(state, provider) > after.initial", "True", (BACKSTOP,)),
    Mutant("ladder: an owner takes over their own account", "engine/backstop.py",
           "and state.subaccounts[number].user is not subaccount.user", "", (BACKSTOP,)),
    Mutant("ladder: a claim is converted that went to a provider", "engine/backstop.py",
           "market.mark_lot, 0, Origin.BACKSTOP, True)", "market.mark_lot, 0, Origin.BACKSTOP)", (BACKSTOP,)),
    Mutant("ladder: the fund's incentive is not asked for", "engine/backstop.py",
           "if taken.incentive > insurance.balance(state):", "if False:", (BACKSTOP,)),
    Mutant("ladder: crumbs are taken from who owes nothing", "engine/insurance.py",
           "    if lacking <= 0:\n        return True\n    _take_crumbs", "    _take_crumbs", (INSURANCE,)),
    Mutant("ladder: a write-off takes more than is waited for", "engine/losses.py",
           "atoms = min(atoms, -subaccount.unsettled, total)", "atoms = min(2 * atoms, total)", (INSURANCE,)),
    Mutant("ladder: the fund sells at any price", "engine/fund_sales.py",
           "if not bound or market.book.bids.best_price_ticks() < bound:", "if not bound:", (INSURANCE,)),
    Mutant("debts: losers' claims are paid from cash that the pool has not", "engine/virtual.py",
           "    lacking = max(0, losses - room)",
           "    lacking = max(0, losses - room - 1_000_000)", (VIRTUAL,)),
    Mutant("debts: a gain leaves the claim's debt as it is", "engine/virtual.py",
           "        repaid = min(atoms, owed)",
           "        repaid = 0", (VIRTUAL,)),
    Mutant("debts: what is owed at a close is rounded down", "engine/virtual.py",
           "min(-whole, mul_div_up(-whole, closed, held))",
           "min(-whole, mul_div_down(-whole, closed, held))", (VIRTUAL,)),
    Mutant("debts: shares of an ended claim stay with the fund", "engine/virtual.py",
           "                pool[lend_share(self.usdc)] -= lent_more",
           "                pool[lend_share(self.usdc)] -= max(lent_more, 0)", (VIRTUAL,)),
    Mutant("debts: who lends after a write-down is paid for it", "engine/yields.py",
           "seen=pool.next_write_down",
           "seen=0", (DEBTS,)),
    Mutant("debts: the mark of a debt is not frozen", "engine/bankruptcy.py",
           "        if asset_id not in liquidation.frozen and mark",
           "        if mark", (DEBTS,)),
    Mutant("debts: fees fill a hole twice", "engine/bankruptcy.py",
           "    found.filled += worth",
           "    found.filled += 2 * worth", (DEBTS,)),
    Mutant("debts: lent collateral is given back for a little less", "engine/lender_adl.py",
           "    left = at_mark.usdc_up(state, asset_id, atoms)",
           "    left = at_mark.usdc_up(state, asset_id, atoms) * 999 // 1_000", (LENDER_ADL,)),
    Mutant("debts: the smallest borrower is asked first", "engine/lender_adl.py",
           "        (-balances.get(balance_key(borrowed(number), share), 0), number)",
           "        (balances.get(balance_key(borrowed(number), share), 0), number)", (LENDER_ADL,)),
)  # fmt: skip


def plant(mutant: Mutant, tree: Path) -> str | None:
    """Change the copy; gives what is wrong when the place is not there exactly once."""
    path = tree / mutant.path
    text = path.read_text()
    found = text.count(mutant.old)
    if found != 1:
        return f"{mutant.path}: the place to change is there {found} times"
    path.write_text(text.replace(mutant.old, mutant.new))
    return None


def judge(mutant: Mutant) -> Verdict:
    """Plant one bug in a fresh copy and run its tests there."""
    with TemporaryDirectory(prefix="mutant-") as folder:
        tree = copy(Path(folder))
        problem = plant(mutant, tree)
        if problem is not None:
            return Verdict(mutant, False, problem)
        code, output = run(tree, mutant.tests)
        failed = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        # Only a failed test counts: 2 and above mean that pytest itself could not run.
        if code == 1 and failed:
            return Verdict(mutant, True, failed[0].split(" - ")[0])
        return Verdict(mutant, False, f"pytest ended with {code}: " + output[-200:].replace("\n", " "))


def copy(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", ".*", "*.db")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """pytest on these tests of the copy, stopping at the first failure."""
    arguments = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    try:
        done = subprocess.run(
            arguments, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        # A planted bug may well loop for ever: that is noticed, too.
        return 1, "FAILED did not end in time"
    return done.returncode, done.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plant known bugs; each must turn the tests red.")
    parser.add_argument("--only", action="append", default=[], help="part of a mutant's name; repeatable")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    chosen = [each for each in MUTANTS if not options.only or any(part in each.name for part in options.only)]

    # Without any bug the same tests are green, or red would prove nothing.
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    console = Console()
    with TemporaryDirectory(prefix="control-") as folder:
        code, output = run(copy(Path(folder)), tests)
    if code != 0:
        console.print(f"the tests fail without any mutant:\n{output[-3000:]}")
        return 2

    verdicts: dict[str, Verdict] = {}
    with Progress(console=console, transient=True) as progress, ThreadPoolExecutor(options.jobs) as pool:
        task = progress.add_task("planting bugs", total=len(chosen))
        for done in as_completed([pool.submit(judge, mutant) for mutant in chosen]):
            verdict = done.result()
            verdicts[verdict.mutant.name] = verdict
            progress.advance(task)
    table = Table(title=f"{sum(each.is_caught for each in verdicts.values())} of {len(chosen)} planted bugs noticed")
    for heading in ("bug", "in", "noticed by"):
        table.add_column(heading)
    for mutant in chosen:
        verdict = verdicts[mutant.name]
        table.add_row(mutant.name, mutant.path, verdict.by if verdict.is_caught else f"[red]NOT NOTICED[/red] {verdict.by}")
    console.print(table)
    return 0 if all(each.is_caught for each in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
