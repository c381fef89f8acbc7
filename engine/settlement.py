"""What one fill does to the ledger: one journal transaction with both legs and both fees.   [A-1, F-1, S-1]

Memo of a TRADE transaction, by position: market id, trade id, price in ticks, lots, taker order, maker order, taker
subaccount, maker subaccount, taker side, taker fee asset, taker fee atoms, maker fee asset, maker fee atoms.
"""

from __future__ import annotations

from engine.commands import Side
from engine.events import Outcome, Trade
from engine.fees import add_volume, fill_volume_usd, spot_rates
from engine.formulas.fees import fee_atoms, insurance_atoms
from engine.posting import post, reserve
from engine.state import Market, Order, State
from ledger.chart import FEE_INCOME, INSURANCE_FUND, available
from ledger.journal import JournalKind, Posting

_BID = Side.BID
_TRADE = int(JournalKind.TRADE)


def settle(
    state: State, outcome: Outcome, market: Market, taker: Order, maker: Order, lots: int, hour: int
) -> None:
    """Settle one fill at the maker's price: post it, release the maker's lock, count volume, report the trade.

    Each side pays its fee in what it receives: the buyer in base, the seller in quote.   [F-1, F-4]
    """
    parameters = market.parameters
    price = maker.price_ticks
    base, quote = parameters.base_asset_id, parameters.quote_asset_id
    quote_atoms = price * lots * parameters.tick_value_atoms
    base_atoms = lots * parameters.lot_atoms
    taker_owner, maker_owner = taker.subaccount, maker.subaccount
    taker_id, maker_id = taker_owner.subaccount_id, maker_owner.subaccount_id
    taker_rate = spot_rates(state, taker_owner.user, hour).taker_rate
    maker_rate = spot_rates(state, maker_owner.user, hour).maker_rate

    if taker.side == _BID:
        taker_fee, taker_fee_asset = fee_atoms(base_atoms, taker_rate), base
        maker_fee, maker_fee_asset = fee_atoms(quote_atoms, maker_rate), quote
        buyer, seller, buyer_fee, seller_fee = available(taker_id), available(maker_id), taker_fee, maker_fee
        reserve(state, outcome, maker_id, base, -base_atoms)
    else:
        taker_fee, taker_fee_asset = fee_atoms(quote_atoms, taker_rate), quote
        maker_fee, maker_fee_asset = fee_atoms(base_atoms, maker_rate), base
        buyer, seller, buyer_fee, seller_fee = available(maker_id), available(taker_id), maker_fee, taker_fee
        reserve(state, outcome, maker_id, quote, -quote_atoms)

    trade_id = market.next_trade_id
    market.next_trade_id = trade_id + 1
    market.last_price_ticks = price

    postings: list[Posting] = [
        (buyer, quote, quote_atoms),
        (seller, quote, seller_fee - quote_atoms),
        (seller, base, base_atoms),
        (buyer, base, buyer_fee - base_atoms),
    ]
    share = state.fees.insurance_share
    for asset, fee in ((quote, seller_fee), (base, buyer_fee)):
        if fee:
            insured = insurance_atoms(fee, share) if share else 0
            if fee != insured:
                postings.append((FEE_INCOME, asset, insured - fee))
            if insured:
                postings.append((INSURANCE_FUND, asset, -insured))
    post(
        state,
        outcome,
        _TRADE,
        (
            parameters.market_id,
            trade_id,
            price,
            lots,
            taker.order_id,
            maker.order_id,
            taker_id,
            maker_id,
            int(taker.side),
            taker_fee_asset,
            taker_fee,
            maker_fee_asset,
            maker_fee,
        ),
        postings,
    )

    usd = fill_volume_usd(state, quote, quote_atoms)
    add_volume(taker_owner.user, hour, usd)
    add_volume(maker_owner.user, hour, usd)
    taker.executed_lots += lots
    taker.executed_quote_atoms += quote_atoms
    maker.executed_quote_atoms += quote_atoms
    outcome.events.append(
        Trade(
            parameters.market_id,
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
