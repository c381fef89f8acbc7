"""What surely fills of a fill-or-kill order for a perpetual, found without touching anything.   [S-7, M-9]

Every maker there is judged when it fills. So the book is walked as matching walks it, and what each maker's account
would have given away by then is added up and judged. A maker counts when it passes with a cent to spare and pays its
fees from what is available: then it passes at its fill, whatever the pools' roundings do. One that does not may fill
all the same, in the place of others behind it; so what is counted is filled, and more is never needed.
"""

from __future__ import annotations

from engine import margin
from engine.book import Ladder
from engine.commands import SelfTrade, Side
from engine.formulas.fees import fee_atoms
from engine.matching import Preview, Stop
from engine.parameters import USD_SCALE
from engine.state import REDUCE_ONLY, Market, Order, State, Subaccount
from ledger.chart import contracts

_SLACK_USD = USD_SCALE // 100
_BID = Side.BID


class Account:
    """What a maker's account would have traded by now."""

    __slots__ = ("buys", "cost", "fee", "is_unsure", "loss", "lots", "sells", "subaccount")

    def __init__(self, subaccount: Subaccount) -> None:
        self.subaccount = subaccount
        self.lots = self.cost = self.buys = self.sells = self.fee = 0
        self.loss = 0
        """Of its open orders' loss against the mark, what the filled ones no longer count."""
        self.is_unsure = False


def look_ahead(
    state: State,
    at_us: int,
    market: Market,
    taker: Subaccount,
    self_trade: SelfTrade,
    opposite: Ladder,
    bound_key: int,
    lots: int,
    quote_ticks: int | None,
) -> Preview:
    """What surely fills, as `matching.preview` tells it.   [S-7, S-8]"""
    accounts: dict[int, Account] = {}
    filled = spent = 0
    for level in opposite.from_best():
        if quote_ticks is not None:
            lots = filled + (quote_ticks - spent) // level.price_ticks
            if lots == filled:
                return Preview(filled, spent, Stop.NOT)
        if level.price_ticks * opposite.sign > bound_key:
            return Preview(filled, spent, Stop.PRICE)
        maker = level.first
        while maker is not None and filled < lots:
            if maker.subaccount.user is not taker.user:
                part = _surely_fills(state, at_us, market, accounts, maker, lots - filled)
                filled += part
                spent += part * level.price_ticks
            elif self_trade is not SelfTrade.REJECT_MAKER:
                return Preview(filled, spent, Stop.SELF_TRADE)
            maker = maker.next
        if filled == lots:
            return Preview(filled, spent, Stop.NOT)
    return Preview(filled, spent, Stop.EMPTY)


def _surely_fills(
    state: State, at_us: int, market: Market, accounts: dict[int, Account], maker: Order, wanted: int
) -> int:
    """How many lots of this maker can be counted on after all that its account has traded before."""
    subaccount = maker.subaccount
    account = accounts.get(subaccount.subaccount_id)
    if account is None:
        account = accounts[subaccount.subaccount_id] = Account(subaccount)
    if account.is_unsure:
        return 0
    left = maker.lots - maker.executed_lots
    lots = min(wanted, left)
    is_reducing = bool(maker.flags & REDUCE_ONLY)
    if is_reducing:
        held = subaccount.positions.get(market.parameters.market_id)
        size = account.lots + (held.lots if held is not None else 0)
        lots = min(lots, max(0, -size if maker.side is _BID else size))
    if lots and not _passes(state, at_us, market, account, maker, lots, left, is_reducing):
        account.is_unsure = True
        return 0
    return lots


def _passes(
    state: State, at_us: int, market: Market, account: Account, maker: Order, lots: int, left: int, is_reducing: bool
) -> bool:
    """Add the fill to what the account has traded and judge it.   [M-9]"""
    subaccount, parameters = account.subaccount, market.parameters
    value = maker.price_ticks * parameters.tick_value_atoms
    signed = lots if maker.side is _BID else -lots
    account.lots += signed
    account.cost += (market.settled - value) * signed
    if not is_reducing and signed > 0:
        account.buys -= lots
    elif not is_reducing:
        account.sells -= lots
    # The highest rate there is: nobody's tier is looked up, which could change it.
    account.fee += fee_atoms(value * lots, state.fees.futures[0].maker_rate)
    account.loss += margin.order_loss(state, maker, left) - margin.order_loss(state, maker, left - lots)
    if account.fee > state.free(subaccount.subaccount_id, state.usdc):
        return False
    changes = {
        contracts(parameters.market_id): (account.lots, account.cost, account.buys, account.sells),
        state.usdc: (-account.fee, 0, 0, 0),
    }
    after = margin.sums(state, subaccount, at_us, changes, is_strict=True)
    if after.is_unpriced:
        return False
    loss = margin.open_order_loss(state, subaccount) - account.loss
    return after.equity - loss - _SLACK_USD > after.initial
