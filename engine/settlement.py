"""What one fill does to the ledger: one journal transaction with both legs and both fees.   [A-1, F-1, S-1]

Memo of a TRADE transaction, by position: market id, trade id, price in ticks, lots, taker order, maker order, taker
subaccount, maker subaccount, taker side, taker fee asset, taker fee atoms, maker fee asset, maker fee atoms.
"""

from __future__ import annotations

from engine.commands import Side
from engine.events import Outcome, Trade
from engine.fees import HOUR_US, add_volume, spot_rates
from engine.formulas.fees import fee_atoms, insurance_atoms, volume_usd
from engine.matching import Fills
from engine.posting import post
from engine.pricing import mark_price
from engine.state import Market, Order, State
from ledger.chart import FEE_INCOME, INSURANCE_FUND, available
from ledger.journal import JournalKind, Posting

_BID = Side.BID
_TRADE = int(JournalKind.TRADE)


def settle(state: State, outcome: Outcome, market: Market, taker: Order, fills: Fills) -> None:
    """Settle a taker's fills, each at its maker's price: post it, release the maker's lock, count volume, report it.

    Each side pays its fee in what it receives: the buyer in base, the seller in quote.   [F-1, F-4]
    """
    parameters = market.parameters
    market_id = parameters.market_id
    base, quote = parameters.base_asset_id, parameters.quote_asset_id
    tick_value, lot_atoms = parameters.tick_value_atoms, parameters.lot_atoms
    hour = outcome.at_us // HOUR_US
    share = state.fees.insurance_share
    quote_price, quote_unit = mark_price(state, quote), 10 ** state.assets[quote].decimals
    buys = taker.side is _BID
    side = int(taker.side)
    taker_id, taker_user = taker.subaccount.subaccount_id, taker.subaccount.user
    taker_account = available(taker_id)
    taker_rate = spot_rates(state, taker_user, hour).taker_rate
    taker_fee_asset, maker_fee_asset = (base, quote) if buys else (quote, base)
    trade_id = market.next_trade_id
    volume = 0
    known = state.valuations.spare
    if known:
        known.pop(taker_id, None)
        for maker, _lots in fills:
            known.pop(maker.subaccount.subaccount_id, None)

    for maker, lots in fills:
        price = maker.price_ticks
        quote_atoms = price * lots * tick_value
        base_atoms = lots * lot_atoms
        owner = maker.subaccount
        maker_id, maker_user = owner.subaccount_id, owner.user
        maker_account = available(maker_id)
        maker_rate = spot_rates(state, maker_user, hour).maker_rate
        reserved = owner.reserved
        if buys:
            taker_fee, maker_fee = fee_atoms(base_atoms, taker_rate), fee_atoms(quote_atoms, maker_rate)
            quote_fee, base_fee = maker_fee, taker_fee
            buyer, seller = taker_account, maker_account
            locked_asset, unlocked = base, base_atoms
        else:
            taker_fee, maker_fee = fee_atoms(quote_atoms, taker_rate), fee_atoms(base_atoms, maker_rate)
            quote_fee, base_fee = taker_fee, maker_fee
            buyer, seller = maker_account, taker_account
            locked_asset, unlocked = quote, quote_atoms
        locked = reserved[locked_asset] - unlocked
        assert locked >= 0, f"order {maker.order_id}: {unlocked} of asset {locked_asset} unlocked, {locked} left"
        if locked:
            reserved[locked_asset] = locked
        else:
            del reserved[locked_asset]

        postings: list[Posting] = [
            (buyer, quote, quote_atoms),
            (seller, quote, quote_fee - quote_atoms),
            (seller, base, base_atoms),
            (buyer, base, base_fee - base_atoms),
        ]
        if quote_fee == quote_atoms or base_fee == base_atoms:
            # A fee is rounded up, of an atom to an atom: then nothing is received, and no leg is empty.
            postings = [posting for posting in postings if posting[2]]
        if share:
            _add_fee(postings, quote, quote_fee, insurance_atoms(quote_fee, share))
            _add_fee(postings, base, base_fee, insurance_atoms(base_fee, share))
        else:
            if quote_fee:
                postings.append((FEE_INCOME, quote, -quote_fee))
            if base_fee:
                postings.append((FEE_INCOME, base, -base_fee))
        memo = (
            market_id,
            trade_id,
            price,
            lots,
            taker.order_id,
            maker.order_id,
            taker_id,
            maker_id,
            side,
            taker_fee_asset,
            taker_fee,
            maker_fee_asset,
            maker_fee,
        )
        post(state, outcome, _TRADE, memo, postings)

        usd = volume_usd(quote_atoms, quote_price, quote_unit)
        volume += usd
        add_volume(maker_user, hour, usd)
        taker.executed_lots += lots
        taker.executed_quote_atoms += quote_atoms
        maker.executed_quote_atoms += quote_atoms
        outcome.events.append(
            Trade(
                market_id,
                trade_id,
                price,
                lots,
                quote_atoms,
                taker.view(),
                maker.view(),
                taker_fee_asset,
                taker_fee,
                maker_fee_asset,
                maker_fee,
            )
        )
        trade_id += 1

    add_volume(taker_user, hour, volume)
    market.next_trade_id = trade_id
    market.last_price_ticks = price


def _add_fee(postings: list[Posting], asset: int, fee: int, insured: int) -> None:
    """The insurance fund's share of a fee, the rest to fee income; zero legs are left out.   [F-4]"""
    if fee != insured:
        postings.append((FEE_INCOME, asset, insured - fee))
    if insured:
        postings.append((INSURANCE_FUND, asset, -insured))
