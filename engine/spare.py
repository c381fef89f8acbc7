"""Spare equity: a remembered bound that lets most orders and fills of an account pass without a new summary.   [M-9]

After an exact summary that passed, an account keeps how far it was from failing, in USD (1e-8). What its orders do
afterwards takes a bound of the harm from that; while something is left, an exact summary would pass as well, so it
need not be made. When nothing is left, or anything else may have happened, the exact one decides: what is remembered
changes no result, and a node that remembers nothing (after a snapshot, say) gives the same answers.

Why the bound holds. Let M be the price of an atom, and every fraction of an exposure at most 1 (`remember` and
`_price` see to that, with n × factor × √n growing by at most 1.5 × factor × √n).

* An order that rests with `atoms` to pay raises one exposure by at most that: initial margin by ≤ atoms × M; the loss
  of open orders by its own. That it ends, or fills in part, only gives back. That margins use isqrt and not √ is worth
  less than n × factor ≤ √n once for each asset, which is put aside.
  What of an order rests after it took something is another matter: then the account is forgotten.
* A fill that pays `atoms`, held, redeemed or borrowed, lowers values less liabilities by ≤ atoms × M (weights are ≤ 1)
  and raises exposure by ≤ atoms: 2 × atoms × M. What it gets lowers nothing but, where the weight falls with size, the
  weight by one of its steps of 1e-9, on all that is held. Roundings: a few atoms of both assets and units of 1e-8.
* An order of a perpetual of `lots` that rests raises the market's one exposure by at most that many, so initial margin
  by at most their notional × the largest slope of n × fraction(n) up to `root`; a maker's fill raises no exposure: its
  lots were counted while it rested; a taker's does by its lots. Against the mark a fill loses what it loses, once in
  equity and, where USDC is going to be owed for it, once more as exposure at a fraction of at most 1; its fee likewise.
* Interest: a rate is at most 10,000 % a year, so in `_SECONDS` a debt grows by less than 2⁻¹⁷ of itself, and that
  counts in liability and in margin. Movements of other accounts in the same pools cost less than a thousandth of an
  atom each (a share is worth no more, B-4), and `_MOVES` of them end the validity.
* A new mark or asset parameter ends it (`Valuations`), so does every command that is not an order, a price that is no
  longer live, a fill that was not judged here. Accounts that lend and repay by themselves, or have yields to collect,
  are not remembered.
"""

from __future__ import annotations

from math import isqrt

from engine import margin
from engine.formulas.margin import ROOT_SCALE, leverage_fraction
from engine.parameters import RATE_SCALE, USD_SCALE, WeightKind
from engine.state import ASSET_BITS, Spare, State, Subaccount
from ledger.chart import AssetId, available

_SECONDS = 1
_MOVES = 100_000
_MOST_USD = 10**7 * USD_SCALE
"""No more than this is remembered, which bounds what one exposure can grow to meanwhile."""
_ATOMS = 1_000
"""Put aside of each asset: what `_MOVES` roundings of its pool may cost, and those of the account's own."""


def can_rest(
    state: State, subaccount: Subaccount, at_us: int, asset_id: AssetId, atoms: int, fee_usd: int, loss: int
) -> bool:
    """Whether an order that would pay `atoms` surely passes M-9 as if it rested; takes what it may cost.   [M-9]"""
    known = _known(state, subaccount, at_us)
    price = _price(state, known, at_us, asset_id) if known is not None else None
    if known is None or price is None:
        return False
    cost = _usd(atoms + 8, price) + loss + 8
    if known.usd <= cost + fee_usd:
        return False
    known.usd -= cost
    return True


def can_fill(
    state: State, subaccount: Subaccount, at_us: int, pays_asset: AssetId, pays: int, gets_asset: AssetId, gets: int
) -> bool:
    """Whether a fill surely leaves more equity than initial margin; takes what it may cost.   [M-9]"""
    known = _known(state, subaccount, at_us)
    price = _price(state, known, at_us, pays_asset) if known is not None else None
    if known is None or price is None or gets < 0 or gets_asset in subaccount.lent:
        return False
    got, _unit, got_in_usd, _weight, flat, _pricing, asset = margin.line(state, gets_asset)
    paid = _usd(pays + 8, price)
    cost = 2 * paid + (paid >> 13) + 16 * (got // got_in_usd + 1)
    if asset.weight_kind is WeightKind.INVERSE_SQRT:
        held = gets - state.balances.get(available(subaccount.subaccount_id) << ASSET_BITS | gets_asset, 0)
        if held > flat:
            cost += held * got // (got_in_usd * RATE_SCALE) + 1
    if known.usd <= cost:
        return False
    known.usd -= cost
    return True


def can_rest_perpetual(
    state: State, subaccount: Subaccount, at_us: int, market_id: int, lots: int, fee_usd: int, loss: int
) -> bool:
    """Whether an order of a perpetual surely passes M-9 as if it rested; takes what it may cost.   [M-9]"""
    known = _known(state, subaccount, at_us)
    margins = _lots_margin(state, subaccount, known, at_us, market_id, lots) if known is not None else None
    if known is None or margins is None:
        return False
    cost = margins + loss + 8
    if known.usd <= cost + fee_usd:
        return False
    known.usd -= cost
    return True


def can_fill_perpetual(
    state: State, subaccount: Subaccount, at_us: int, market_id: int, lots: int, loss: int, fee: int
) -> bool:
    """Whether a fill of a perpetual surely leaves more equity than initial margin; takes what it may cost.   [M-9]

    `lots`: what it adds to the exposure, 0 of a maker. `loss` against the mark in USD (1e-8), `fee` in USDC atoms.
    """
    known = _known(state, subaccount, at_us)
    margins = _lots_margin(state, subaccount, known, at_us, market_id, lots) if known is not None else None
    if known is None or margins is None:
        return False
    price, _unit, in_usd, *_rest = margin.line(state, state.usdc)
    cost = margins + 2 * loss + 2 * (fee * price // in_usd + 1) + 16
    if known.usd <= cost:
        return False
    known.usd -= cost
    return True


def remember(
    state: State, subaccount: Subaccount, at_us: int, after: margin.Sums, loss: int, asset_id: AssetId
) -> None:
    """An exact summary as of now passed, with this loss of open orders, after paying more of the asset.   [M-9]"""
    number = subaccount.subaccount_id
    state.valuations.spare.pop(number, None)
    if number in state.automatic or (state.has_yields and subaccount.share_times) or after.is_unpriced:
        return
    if subaccount.claims or subaccount.unsettled:
        return
    aside, until_us = after.liability >> 15, at_us + _SECONDS * 1_000_000
    root = isqrt(2 * (after.notional + _MOST_USD)) + 1
    for each in (*subaccount.asset_ids, asset_id):
        price, _unit, in_usd, _weight, _flat, pricing, _asset = margin.line(state, each)
        aside += _ATOMS * (price // in_usd + 1) + root
        if at_us <= pricing.live_until_us < until_us:
            until_us = pricing.live_until_us
    aside += (len(subaccount.positions) + 1) * root
    usd = min(_MOST_USD, after.equity - loss - after.initial - aside)
    if usd > 0 and subaccount.leverage_limit >= RATE_SCALE:
        valuations = margin.valuations(state)
        valuations.spare[number] = Spare(usd, at_us, until_us, valuations.moves + _MOVES, root)


def forget(state: State, subaccount: Subaccount) -> None:
    """Something happens to the account that is not taken from what it spares."""
    state.valuations.spare.pop(subaccount.subaccount_id, None)


def _known(state: State, subaccount: Subaccount, at_us: int) -> Spare | None:
    valuations = margin.valuations(state)
    known = valuations.spare.get(subaccount.subaccount_id)
    if known is None or not known.from_us <= at_us <= known.until_us or valuations.moves > known.last_move:
        return None
    return known


def _price(state: State, known: Spare, at_us: int, asset_id: AssetId) -> tuple[int, int] | None:
    """(mark, its divisor to USD) of an asset that is live and whose margin grows no faster than its exposure."""
    price, _unit, in_usd, _weight, _flat, pricing, asset = margin.line(state, asset_id)
    if not price or at_us > pricing.live_until_us:
        return None
    if 3 * max(4 * asset.imf_factor, 5 * asset.mmf_factor) * known.root > 8 * ROOT_SCALE * RATE_SCALE:
        return None
    if max(4 * asset.imf_base, 5 * asset.mmf_base) > 4 * RATE_SCALE:
        return None
    return price, in_usd


def _lots_margin(
    state: State, subaccount: Subaccount, known: Spare, at_us: int, market_id: int, lots: int
) -> int | None:
    """The most by which `lots` more of a perpetual's exposure raise initial margin, in USD (1e-8); None: not known."""
    found = margin.valuations(state).perpetuals.get(market_id) or margin.perpetual_line(state, market_id)
    mark_lot, pricing, imf_base, imf_factor, mmf_base, mmf_factor = found
    if not mark_lot or at_us > pricing.live_until_us:
        return None
    if not lots:
        return 0
    usd, _unit, in_usd, *_rest = margin.line(state, state.usdc)
    base = max(imf_base, leverage_fraction(subaccount.leverage_limit), 5 * mmf_base // 4 + 1)
    # The slope of n × factor × √n is 1.5 × factor × √n; IMF counts 1.25 × MMF as well.
    slope = max(4 * imf_factor, 5 * mmf_factor) * 3 * known.root // (8 * ROOT_SCALE) + 1
    notional = lots * mark_lot * usd // in_usd + 1
    return notional * max(base, slope) // RATE_SCALE + 1


def _usd(atoms: int, price: tuple[int, int]) -> int:
    return atoms * price[0] // price[1] + 1
