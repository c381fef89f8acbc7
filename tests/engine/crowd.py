"""Holders of perpetual positions written straight into a state: populations that no sequence of orders reaches soon."""

from __future__ import annotations

from engine import cash, lending, margin
from engine.commands import SettlePositions
from engine.events import LendingSource, Outcome
from engine.posting import drop_position, post
from engine.state import Market, State, Subaccount, User
from engine.transition import apply
from ledger.chart import (
    INSURANCE_FUND,
    INSURANCE_UNSETTLED,
    LIQUIDITY_FUND,
    OPERATOR_EQUITY,
    ROUNDING,
    ROUNDING_UNSETTLED,
    AccountId,
    AssetId,
    available,
    claim_debt,
    claim_lend,
    contracts,
    cost,
    debt_share,
    lend_share,
    position,
)
from ledger.journal import JournalKind, residues
from tests.engine.exchange import Exchange

TICK_US = 10_000_000


class Crowd:
    """`size` subaccounts with ids from 1, no USDC, no positions, and the devnet's three perpetuals."""

    def __init__(self, size: int) -> None:
        self.exchange = Exchange()
        self.state: State = self.exchange.state
        self.usdc = self.state.usdc
        self.markets: list[Market] = [
            market for _number, market in sorted(self.state.markets.items()) if market.parameters.perpetual is not None
        ]
        self.at_us = self.exchange.at_us
        user = User(1, 0)
        self.state.users[1] = user
        for number in range(1, size + 1):
            self.state.subaccounts[number] = Subaccount(number, user, 0)
        self.state.next_subaccount_id = size + 1

    def posts(self, kind: JournalKind, *postings: tuple[AccountId, AssetId, int]) -> None:
        outcome = Outcome(self.state.sequence, self.at_us)
        post(self.state, outcome, kind, (), list(postings))

    def fund(self, number: int, atoms: int) -> None:
        """The operator gives the subaccount USDC."""
        self.posts(JournalKind.DEPOSIT, (available(number), self.usdc, -atoms), (OPERATOR_EQUITY, self.usdc, atoms))

    def insure(self, atoms: int) -> None:
        self.posts(JournalKind.INSURANCE, (INSURANCE_FUND, self.usdc, -atoms), (OPERATOR_EQUITY, self.usdc, atoms))

    def lends(self, number: int, atoms: int) -> None:
        """The subaccount lends what it holds."""
        outcome, into = Outcome(self.state.sequence, self.at_us), lending.Movements()
        account = self.state.subaccounts[number]
        lending.lend(self.state, outcome, into, account, self.usdc, atoms, LendingSource.MANUAL)
        lending.post_alone(self.state, outcome, into)

    def borrows(self, number: int, atoms: int) -> None:
        outcome, into = Outcome(self.state.sequence, self.at_us), lending.Movements()
        account = self.state.subaccounts[number]
        lending.borrow(self.state, outcome, into, account, self.usdc, atoms, LendingSource.MANUAL)
        lending.post_alone(self.state, outcome, into)

    def trade(self, market: Market, buyer: int, seller: int, lots: int, price: int) -> None:
        """`lots` at `price` quote atoms a lot pass from one to the other: contracts and their cost."""
        market_id, atoms = market.parameters.market_id, lots * market.parameters.lot_atoms
        gained = (market.settled - price) * lots
        bought, sold = position(buyer), position(seller)
        self.posts(
            JournalKind.PERPETUAL_TRADE,
            (bought, contracts(market_id), -atoms),
            (sold, contracts(market_id), atoms),
            (bought, cost(market_id), -gained),
            (sold, cost(market_id), gained),
        )
        for number in (buyer, seller):
            drop_position(self.state.subaccounts[number].positions[market_id])

    def tick(self) -> Outcome:
        """The next settlement tick; what it wrote balances, and unsettled equity sums to zero.   [A-13]"""
        self.at_us += TICK_US
        outcome = apply(self.state, self.state.sequence + 1, self.at_us, SettlePositions())
        assert outcome.rejection is None, outcome.rejection
        for entry in outcome.journal:
            assert residues(entry) == {}, entry
        self.check()
        return outcome

    def check(self) -> None:
        state, usdc = self.state, self.usdc
        waiting = sum(each.unsettled for each in state.subaccounts.values())
        assert waiting + self.credit(INSURANCE_UNSETTLED) + self.credit(ROUNDING_UNSETTLED) == 0
        assert sorted(state.unsettled) == [n for n, each in sorted(state.subaccounts.items()) if each.unsettled]
        columns = cash.cash(state)
        for number, account in state.subaccounts.items():
            assert state.free(number, usdc) >= 0
            if columns.is_known[number]:
                assert columns.held[number] == state.held(number, usdc)
                assert columns.reserved[number] == account.reserved.get(usdc, 0)
        assert self.idle() >= 0
        assert self.credit(LIQUIDITY_FUND) == 0
        for share, claim_of in ((lend_share(usdc), claim_lend), (debt_share(usdc), claim_debt)):
            claims = [claim_of(market.parameters.market_id) for market in self.markets]
            assert self.credit(LIQUIDITY_FUND, share) + sum(self.credit(LIQUIDITY_FUND, each) for each in claims) == 0
        for market in self.markets:
            held = [each.positions.get(market.parameters.market_id) for each in state.subaccounts.values()]
            lots = [each.lots for each in held if each is not None]
            assert sum(lots) == 0 and sum(each for each in lots if each > 0) == market.open_interest
            assert sum(each.cost for each in held if each is not None) + self.credit(
                ROUNDING, cost(market.parameters.market_id)
            ) == 0

    def credit(self, account: AccountId, asset: AssetId = 0) -> int:
        return -self.state.balances.get(account << 24 | (asset or self.usdc), 0)

    def idle(self) -> int:
        return lending.totals(self.state, self.state.pools[self.usdc], self.at_us).idle

    def held(self, number: int) -> int:
        return self.state.held(number, self.usdc)

    def worth(self, number: int) -> int:
        """What the subaccount has in USDC, in all its forms but positions."""
        account = self.state.subaccounts[number]
        lent = lending.claim(self.state, account, self.usdc, self.at_us)
        owed = lending.debt(self.state, account, self.usdc, self.at_us)
        claims = sum(margin.claim_atoms(self.state, account, market, self.at_us) for market in account.claims)
        return self.held(number) + account.unsettled + lent - owed + claims

    def gains(self) -> dict[int, int]:
        """x of S-10 of everybody, position by position."""
        found = {}
        for number, account in self.state.subaccounts.items():
            found[number] = sum(
                held.lots * (held.market.mark_lot - held.market.settled) + held.cost
                for held in account.positions.values()
            )
        return found
