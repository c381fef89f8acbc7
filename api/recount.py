"""The full recount from SQL: postings up to an epoch's block, added up and held against its header.   [A-13]"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from ledger import balances
from ledger.chart import amm_fund, amm_pool, is_of_amm, pool_of
from ledger.invariants import ConservationError
from por.conservation import exchange_shares
from por.header import Header

Totals = dict[tuple[str, str], int]
"""(account type, asset's symbol) → signed atoms, debits positive."""


def require_recount(reader: sa.Engine, header: Header, kind_name: Callable[[int], str]) -> None:
    """The postings in the database sum to what the epoch states, kind by kind. Raises ConservationError.   [A-13]

    `kind_name` is what this header's builder calls a kind of account, so that a new kind needs nothing here.
    """
    stated = stated_totals(header)
    counted = counted_totals(reader, header.block_height, kind_name)
    found = [
        f"{kind} in {asset}: the epoch states {stated.get((kind, asset), 0)} atoms,"
        f" the postings sum to {counted.get((kind, asset), 0)}"
        for kind, asset in sorted(stated.keys() | counted.keys())
        if stated.get((kind, asset), 0) != counted.get((kind, asset), 0)
    ]
    if found:
        raise ConservationError(
            f"epoch {header.epoch} is not published: the recount up to block {header.block_height} differs, "
            + "; ".join(found)
        )


def stated_totals(header: Header) -> Totals:
    """What the header says of users' accounts (by type), of their shares (by pool), of their positions and claims (by
    market), of all other accounts (by name). Longs are shorts: a sum of contracts is zero.
    """
    stated: Totals = {}
    for line in header.trial_balance:
        key = (line.account_type, line.asset)
        stated[key] = stated.get(key, 0) + line.atoms
    for name, atoms in header.system.items():
        asset, kind = name.rsplit(".", 1)
        stated[kind, asset] = stated.get((kind, asset), 0) + atoms
    for pool in header.pools:
        # Users' are all shares but those of the liquidity fund and the insurance fund.
        lend, debt = f"{pool.asset}.lend", f"{pool.asset}.debt"
        stated["lent", lend] = -pool.lend_shares - exchange_shares(header.system, lend)
        stated["borrowed", debt] = pool.debt_shares - exchange_shares(header.system, debt)
    for market in header.markets:
        stated["position", f"{market.market}.cost"] = market.cost
        stated["claim", f"{market.market}.claim"] = -market.claim_lend
        stated["claim", f"{market.market}.claim-debt"] = market.claim_debt
    for asset, atoms in header.unsettled.items():
        stated["unsettled", asset] = atoms
    for amm in header.amms:
        name = amm.pool
        stated["pool-units", f"{name}.pool-units"] = -amm.units
        stated["pool-custody", f"{name}.native-custody"] = -amm.native_custody
        stated["pool-custody", f"{name}.custody"] = -amm.external_custody
        stated["pool-debt", f"{name}.native-owed"] = amm.native_owed
        stated["pool-debt", f"{name}.owed"] = amm.external_owed
        for asset, coins, fund in (
            (amm.native, amm.native_balance + amm.native_custody, amm.native_fund),
            (name, amm.external_balance + amm.external_custody, amm.external_fund),
        ):
            # The header adds the native asset up over all pools; the postings are counted pool by pool.  
            stated[f"amm_pool of {name}", asset], stated[f"amm_fund of {name}", asset] = -coins, -fund
    return stated


def counted_totals(reader: sa.Engine, height: int, kind_name: Callable[[int], str]) -> Totals:
    """The same from the postings up to block `height`; assets by the symbols that they had then."""
    listed = balances.assets(reader, as_of=height)
    counted: Totals = {}
    for (kind, asset_id), atoms in balances.totals_by_kind(reader, as_of=height).items():
        asset = listed[asset_id].symbol if asset_id in listed else f"asset/{asset_id}"
        key = (kind_name(kind), asset)
        counted[key] = counted.get(key, 0) + atoms
    pools = {asset_id: pool_of(asset_id) for asset_id in listed if is_of_amm(asset_id)}
    for pool_id in dict.fromkeys(pools.values()):
        for name, account in (("amm_pool", amm_pool(pool_id)), ("amm_fund", amm_fund(pool_id))):
            for asset_id, atoms in balances.account_balances(reader, account, height).items():
                counted[f"{name} of {listed[pool_id].symbol}", listed[asset_id].symbol] = atoms
    return counted

