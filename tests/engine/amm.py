"""Providers, traders and an epoch clock on a small exchange with one liquidity pool, in the words of its rules."""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt
from typing import Any

from msgspec.structs import replace

from engine import pools
from engine.commands import (
    AddLiquidity,
    CloseLong,
    Command,
    ConfigurePool,
    OpenLong,
    RemoveLiquidity,
    SwapAssets,
)
from engine.events import LongClosed, LongNotClosed, LongOpened, LongView, Outcome, PoolEpochRan, PoolSwapped
from engine.parameters import DEC
from engine.rejections import Rejection
from engine.state import AmmPool, AmmPosition
from ledger.invariants import RunningTotals
from ledger.journal import seal
from tests.engine.desk import Desk, Trader

ROWAN, USDC, SOL = 10**9, 10**6, 10**9
"""Atoms of one ROWAN, of one USDC, of one SOL."""
FEE = Fraction(3, 1_000)
HOUR = 3_600


class Pond(Desk):
    """A desk with the pool ROWAN : USDC, filled at 1 by `lp`, and time enough gone by for its mean price to be there.

    Parameters are the devnet's but for what is given.
    """

    def __init__(self, rowan: int = 1_000_000, usdc: int = 1_000_000, **parameters: Any) -> None:
        super().__init__()
        self.rowan, self.usdc = self.exchange.asset("ROWAN"), self.exchange.asset("USDC")
        self.totals = RunningTotals()
        self._counted = 0
        if parameters:
            self.set(**parameters)
        self.lp = self.party("lp", rowan=rowan, usdc=usdc)
        self.lp.adds(rowan * ROWAN, usdc * USDC)
        self.exchange.advance(120)

    @property
    def pool(self) -> AmmPool:
        return self.state.amm_pools[self.usdc]

    @property
    def price(self) -> Fraction:
        """USDC per ROWAN, without any fee."""
        native, external = pools.depths(self.pool)
        return Fraction(external * ROWAN, native * USDC)

    def set(self, pool_id: int = 0, **parameters: Any) -> Outcome:
        """Change parameters of the pool, by command; refused or not."""
        known = self.state.amm_pools[pool_id or self.usdc].parameters
        return self.attempt(ConfigurePool(replace(known, **parameters)))

    def party(self, name: str, rowan: int = 0, usdc: int = 0, sol: int = 0) -> Party:
        """A trader with so many whole coins."""
        party = Party(self, name)
        for symbol, atoms in (("ROWAN", rowan * ROWAN), ("USDC", usdc * USDC), ("SOL", sol * SOL)):
            if atoms:
                self.exchange.deposit(party.subaccount, symbol, atoms)
        return party

    def passes(self, seconds: int) -> list[Any]:
        """Time goes by; what epochs report on the way."""
        kinds = (PoolEpochRan, LongClosed, LongNotClosed)
        return [
            event for outcome in self.exchange.advance(seconds) for event in outcome.events if isinstance(event, kinds)
        ]

    def until_epoch(self, seconds_before: int = 0) -> list[Any]:
        """To the next full hour, or to so many seconds before it."""
        return self.passes((HOUR - self.exchange.at_us // 10**6 % HOUR - seconds_before - 1) % HOUR + 1)

    def moves_to(self, price: Fraction, whale: Party) -> None:
        """Swaps the spot price to just about `price`, USDC per ROWAN, and lets its mean follow."""
        native, external = pools.depths(self.pool)
        # √ of the ratio, to nine places: what goes in on one side, the fee apart.
        root = Fraction(isqrt(int(price / self.price * 10**18)), 10**9)
        if root > 1:
            whale.swaps("USDC", "ROWAN", int(external * (root - 1)))
        else:
            whale.swaps("ROWAN", "USDC", int(native * (1 / root - 1)))
        self.passes(120)

    def is_conserved(self) -> bool:
        """All journal transactions balance, and the ledger's own watch finds nothing: X-14 from postings alone."""
        for outcome in self.exchange.outcomes[self._counted :]:
            self.totals.add(seal(bytes(32), 1, 1, 1, entry) for entry in outcome.journal)
        self._counted = len(self.exchange.outcomes)
        return self.is_balanced() and not self.totals.violations()


class Party(Trader):
    """A trader or provider of the pool."""

    desk: Pond

    def adds(self, rowan_atoms: int, usdc_atoms: int, **fields: Any) -> int:
        """The units minted."""
        units: int = self.does(self.addition(rowan_atoms, usdc_atoms, **fields)).reply.units
        return units

    def addition(self, rowan_atoms: int, usdc_atoms: int, **fields: Any) -> AddLiquidity:
        return AddLiquidity(self.subaccount, self.desk.usdc, rowan_atoms, usdc_atoms, **fields)

    def removal(self, **fields: Any) -> RemoveLiquidity:
        return RemoveLiquidity(self.subaccount, self.desk.usdc, **fields)

    def removes(self, **fields: Any) -> tuple[int, int]:
        """The atoms paid out, of ROWAN and of USDC."""
        moved = self.does(self.removal(**fields)).reply
        return -moved.native_atoms, -moved.external_atoms

    def swap(self, pays: str, gets: str, atoms: int, **fields: Any) -> SwapAssets:
        asset = self.desk.exchange.asset
        return SwapAssets(self.subaccount, asset(pays), asset(gets), atoms, **fields)

    def swaps(self, pays: str, gets: str, atoms: int, **fields: Any) -> PoolSwapped:
        swapped: PoolSwapped = self.does(self.swap(pays, gets, atoms, **fields)).reply
        return swapped

    def long(self, gets: str, atoms: int, leverage: int = 10 * DEC, pays: str = "", **fields: Any) -> OpenLong:
        """A long of `gets` against collateral of the other side."""
        collateral = pays or ("USDC" if gets == "ROWAN" else "ROWAN")
        asset = self.desk.exchange.asset
        return OpenLong(self.subaccount, asset(collateral), asset(gets), atoms, leverage, **fields)

    def opens(self, gets: str, atoms: int, leverage: int = 10 * DEC, **fields: Any) -> LongView:
        opened: LongOpened = self.does(self.long(gets, atoms, leverage, **fields)).reply
        return opened.long

    def close(self, position_id: int = 0, **fields: Any) -> CloseLong:
        return CloseLong(self.subaccount, position_id or self.position.position_id, **fields)

    def closes(self, position_id: int = 0, **fields: Any) -> LongClosed:
        closed: LongClosed = self.does(self.close(position_id, **fields)).reply
        return closed

    @property
    def position(self) -> AmmPosition:
        """The newest of theirs."""
        mine = [each for each in self.desk.state.amm_positions.values() if each.subaccount_id == self.subaccount]
        return mine[-1]

    @property
    def units(self) -> int:
        holder = self.desk.pool.holders.get(self.subaccount)
        return holder.units if holder is not None else 0

    def refusal(self, command: Command) -> Rejection:
        """Why it is refused; fails when it is accepted, or when it left any trace."""
        before = dict(self.desk.state.balances)
        rejection = self.tries(command).rejection
        assert rejection is not None, f"{command} was accepted"
        assert self.desk.state.balances == before
        return rejection

    def worth(self, price: Fraction = Fraction(1)) -> Fraction:
        """USDC atoms of all coins held, ROWAN at `price`."""
        return self.has("USDC") + self.has("ROWAN") * price * USDC / ROWAN


def swapped(into: int, out: int, paid: int, fee: Fraction = FEE) -> tuple[int, int]:
    """(received, fee) by X-1, from fractions alone; nothing of the engine is in it.   [X-1]"""
    exact = Fraction(paid * out, into + paid)
    kept = floor(exact * fee)
    return floor(exact) - kept, kept
