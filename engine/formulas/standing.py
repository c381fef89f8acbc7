"""Where an account stands, from nothing but what a step of the liquidation ladder put on record: for recomputation.

An `Image` is what the memo of the step says the account had and at which prices; with the parameters that the journal's
configuration commands set it gives net equity, maintenance margin, notional and E again, to the unit.   [L-10]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.formulas.collateral import weight_at
from engine.formulas.margin import margin_line
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE, AssetParameters, PerpetualParameters, WeightKind
from ledger.chart import contracts

_PRICE_IN_USD = PRICE_SCALE // USD_SCALE


class PositionImage(NamedTuple):
    """A position: signed lots, cost in quote atoms, mark and last settled mark in quote atoms per lot.   [C-5]"""

    market_id: int
    lots: int
    cost: int
    mark: int
    settled: int


class HoldingImage(NamedTuple):
    """An asset: what is held and lent, what is owed, yield to collect, in atoms; the mark in PRICE_SCALE.   [C-1]"""

    asset_id: int
    quantity: int
    owed: int
    uncollected: int
    mark: int
    is_sold: bool
    """Whether a market turns it into USDC: else it is not part of E.   [S-12]"""
    receivable: int = 0
    """Of what is owed, what reversed deposits left: it passes to nobody.   [D-5]"""


class Image(NamedTuple):
    """All that an account's margins are made of, open orders left out."""

    usdc: int
    """The asset that perpetuals settle in, and its mark in PRICE_SCALE."""
    usdc_mark: int
    positions: tuple[PositionImage, ...]
    holdings: tuple[HoldingImage, ...]
    claims: int
    """What the liquidity fund holds for it less what it owes for it, in USDC atoms.   [V-3]"""
    unsettled: int
    is_settled: bool
    """Whether its losses are settled in USDC: then they are exposure.   [M-1]"""


class Standing(NamedTuple):
    """In USD (1e-8).   [C-3, M-3, M-7, L-3]"""

    equity: int
    maintenance: int
    notional: int
    realizable: int
    """E: every weight 1, of assets only what can be sold."""


def standing(
    image: Image, assets: Mapping[int, AssetParameters], markets: Mapping[int, PerpetualParameters]
) -> Standing:
    """Net equity, maintenance margin, exposure notional and E of an image.   [C-1 … C-5, M-1, M-3]"""
    usdc_in_usd = 10 ** assets[image.usdc].decimals * _PRICE_IN_USD
    gained = maintenance = notional = 0
    for position in image.positions:
        gained += position.lots * (position.mark - position.settled) + position.cost
        if position.lots and position.mark:
            parameters = markets[position.market_id]
            worth = -(-abs(position.lots) * position.mark * image.usdc_mark // usdc_in_usd)
            notional += worth
            maintenance += _maintenance(worth, parameters)
    shortfall = max(0, -gained) if image.is_settled else 0
    shortfall += max(0, -image.unsettled)
    settling = (gained + image.unsettled + image.claims) * image.usdc_mark // usdc_in_usd
    equity = realizable = settling
    seen = False
    for holding in image.holdings:
        asset = assets[holding.asset_id]
        unit = 10**asset.decimals
        in_usd, mark, quantity = unit * _PRICE_IN_USD, holding.mark, holding.quantity
        liability = -(-holding.owed * mark // in_usd)
        weight = asset.weight
        if asset.weight_kind is WeightKind.INVERSE_SQRT and weight and quantity > 0:
            weight = weight_at(quantity, unit, weight, asset.weight_base, asset.weight_penalty)
        earned = holding.uncollected * mark // in_usd
        equity += quantity * mark * weight // (in_usd * RATE_SCALE) + earned - liability
        realizable += (quantity * mark // in_usd + earned if holding.is_sold else 0) - liability
        bare = holding.owed - quantity
        if holding.asset_id == image.usdc:
            bare, seen = bare + shortfall, True
        if bare > 0 and mark:
            worth = -(-bare * mark // in_usd)
            notional += worth
            maintenance += _maintenance(worth, asset)
    if shortfall and not seen:
        worth = -(-shortfall * image.usdc_mark // usdc_in_usd)
        notional += worth
        maintenance += _maintenance(worth, assets[image.usdc])
    return Standing(equity, maintenance, notional, realizable)


def maintenance(
    image: Image, assets: Mapping[int, AssetParameters], markets: Mapping[int, PerpetualParameters]
) -> dict[int, int]:
    """`contracts` of a market, or an owed asset → its maintenance margin in USD (1e-8): what E is shared by.   [L-6]"""
    usdc_in_usd = 10 ** assets[image.usdc].decimals * _PRICE_IN_USD
    found = {}
    for position in image.positions:
        if position.lots:
            worth = -(-abs(position.lots) * position.mark * image.usdc_mark // usdc_in_usd)
            found[contracts(position.market_id)] = _maintenance(worth, markets[position.market_id])
    for holding in image.holdings:
        asset = assets[holding.asset_id]
        bare = max(0, holding.owed - holding.quantity)
        if bare and holding.mark:
            worth = -(-bare * holding.mark // (10**asset.decimals * _PRICE_IN_USD))
            found[holding.asset_id] = _maintenance(worth, asset)
    return found


def decode(memo: Any) -> Image:
    """An image as a memo has it: arrays by position."""
    usdc, usdc_mark, positions, holdings, claims, unsettled, is_settled = memo
    return Image(
        usdc,
        usdc_mark,
        tuple(PositionImage(*each) for each in positions),
        tuple(HoldingImage(*each) for each in holdings),
        claims,
        unsettled,
        is_settled,
    )


def _maintenance(notional: int, parameters: AssetParameters | PerpetualParameters) -> int:
    """The maintenance margin does not depend on leverage.   [M-3]"""
    return margin_line(
        notional,
        parameters.imf_base,
        parameters.imf_factor,
        parameters.mmf_base,
        parameters.mmf_factor,
        0,
    )[1]
