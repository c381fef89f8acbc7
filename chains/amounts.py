"""Chain base units against ledger atoms: what a transfer credits, what stays behind as dust or rounding.   [D-5]"""

from __future__ import annotations

import sqlalchemy as sa

from chains.adapter import ChainError
from chains.exchange import Token
from chains.schema import dust, rounding


class Implausible(ChainError):
    """A stored remainder that our own arithmetic cannot leave."""


def credited(received_base: int, dust_base: int, token: Token, minimum_atoms: int) -> tuple[int, int]:
    """(atoms to credit, dust left) when base units arrive on top of a dust balance.   [D-5]

    Atoms are rounded down; what does not make an atom stays as dust, and everything does below the minimum.
    """
    total = received_base + dust_base
    atoms = max(0, total) // token.base_per_atom
    if atoms == 0 or atoms < minimum_atoms:
        return 0, total
    return atoms, total - atoms * token.base_per_atom


def fee_atoms(fee_base: int, rounding_base: int, token: Token) -> tuple[int, int]:
    """(atoms to book, rounding left) for a network fee, rounded up; earlier over-booking is used up first.   [A-3]"""
    atoms = max(0, -(-(fee_base - rounding_base) // token.base_per_atom))
    return atoms, rounding_base + atoms * token.base_per_atom - fee_base


def read_dust(connection: sa.Connection, chain_id: int, subaccount_id: int, asset_id: int) -> int:
    """Base units a subaccount has sent that are not credited yet; below zero after a reversal.   [D-5]"""
    return _read(connection, dust, chain_id=chain_id, subaccount_id=subaccount_id, asset_id=asset_id)


def write_dust(connection: sa.Connection, chain_id: int, subaccount_id: int, asset_id: int, base: int) -> None:
    _write(connection, dust, base, chain_id=chain_id, subaccount_id=subaccount_id, asset_id=asset_id)


def most_dust(token: Token) -> int:
    """Dust of a subaccount is always less than this many base units: more would have been credited.   [D-5]"""
    return max(1, token.minimum_deposit_atoms) * token.base_per_atom


def read_rounding(connection: sa.Connection, chain_id: int, wallet: int, token: Token) -> int:
    """Base units a wallet holds beyond the ledger because fees were booked in whole atoms: 0 ≤ it < an atom.

    Anything else was not written by us: nothing is booked with it.
    """
    base = _read(connection, rounding, chain_id=chain_id, wallet=wallet, asset_id=token.asset_id)
    if not 0 <= base < token.base_per_atom:
        raise Implausible(f"chain {chain_id} wallet {wallet}: {base} base units of {token.symbol} are no rounding, an"
                          f" atom is {token.base_per_atom}")
    return base


def write_rounding(connection: sa.Connection, chain_id: int, wallet: int, asset_id: int, base: int) -> None:
    _write(connection, rounding, base, chain_id=chain_id, wallet=wallet, asset_id=asset_id)


def _read(connection: sa.Connection, table: sa.Table, **key: int) -> int:
    value = connection.scalar(sa.select(table.c.base).filter_by(**key))
    return 0 if value is None else int(value)


def _write(connection: sa.Connection, table: sa.Table, base: int, **key: int) -> None:
    if connection.execute(sa.update(table).filter_by(**key).values(base=str(base))).rowcount == 0:
        connection.execute(sa.insert(table).values(base=str(base), **key))
