"""What must balance in an epoch before it is published: ledger and leaves, money markets, perpetuals, liquidity pools.

[R-6, A-1, V-5, X-14]
"""

from __future__ import annotations

from typing import NamedTuple

from ledger.amounts import mul_div_down
from por.canonical import COLUMN_LIMIT, BuildRefused
from por.image import AmmLine, Image, MarketLine, PoolLine
from por.tree import Vector

# Columns that an asset's pool shows. Every other quantity is owed to users: its trial balance is on the credit side.
POOL_COLUMNS = ("lent", "borrowed", "uncollected_yield")
# Columns that a perpetual market shows, and of the asset that they settle in: what waits, what lenders may collect.
MARKET_COLUMNS = (
    "long",
    "short",
    "cost_plus",
    "cost_minus",
    "pnl_plus",
    "pnl_minus",
    "claim_plus",
    "claim_minus",
)
UNSETTLED_COLUMNS = ("unsettled_plus", "unsettled_minus", "recovery")
UNSETTLED_ACCOUNTS = ("insurance_unsettled", "rounding_unsettled")
# Columns that a liquidity pool shows, with the asset of the ledger that each adds up and whether users owe it.
AMM_COLUMNS = ("amm_units", "amm_native_custody", "amm_external_custody", "amm_native_owed", "amm_external_owed")
AMM_ASSETS = ("pool-units", "native-custody", "custody", "native-owed", "owed")
AMM_DEBTS = ("native-owed", "owed")
AMM_COINS, AMM_FUND, AMM_BOOK = "amm_pool", "amm_fund", "amm_book"
LIQUIDITY_FUND = "liquidity_fund"
POOL_SHARES = "pool_shares"
# Accounts that a money market has, as `system` names them: none of them without its pool's line.
POOL_ACCOUNTS = frozenset({"pool_lent", "pool_borrowed", "pool_fees", "pool_yield", "pool_shares", "staked"})


def require_conservation(image: Image, columns: list[str], totals: Vector) -> None:
    """Liabilities are what the trial balance says, type by type, and every asset sums to zero.   [R-6, A-1]"""
    total = dict(zip(columns, totals, strict=True))
    residues: dict[str, int] = {}
    shown: list[str] = []
    for line in image.trial_balance:
        owed = sum(total[_of_asset(name, line.asset, total)] for name in line.columns)
        if owed != abs(line.atoms):
            raise BuildRefused(
                f"{line.asset} {line.account_type}: the leaves sum to {owed}, the trial balance says {abs(line.atoms)}"
            )
        if line.atoms > 0:
            raise BuildRefused(
                f"{line.asset} {line.account_type} is on the wrong side: {line.atoms} for {line.columns}"
            )
        residues[line.asset] = residues.get(line.asset, 0) + line.atoms
        shown += line.columns
    claims, debts = fund_holdings(image, total)
    for pool in image.pools:
        require_pool(pool, total, image.system, len(image.accounts), claims.get(pool.asset), debts.get(pool.asset))
        shown += [f"{pool.asset}.{kind}" for kind in POOL_COLUMNS]
        residues[f"{pool.asset}.lend"] = -pool.lend_shares - exchange_shares(image.system, f"{pool.asset}.lend")
        residues[f"{pool.asset}.debt"] = pool.debt_shares - exchange_shares(image.system, f"{pool.asset}.debt")
    require_every_pool(image)
    for market in image.markets:
        require_market(market, total, image.system)
        shown += [f"{market.market}.{kind}" for kind in MARKET_COLUMNS]
        residues[market.market] = total[f"{market.market}.short"] - total[f"{market.market}.long"]
        residues[f"{market.market}.cost"] = market.cost
        residues[f"{market.market}.claim"] = -market.claim_lend
        residues[f"{market.market}.claim-debt"] = market.claim_debt
    require_markets(image)
    for amm in image.amms:
        shown += [f"{amm.pool}.{kind}" for kind in AMM_COLUMNS]
        residues |= require_amm(amm, total, image.system)
    require_amms(image)
    for asset, atoms in image.unsettled.items():
        require_unsettled(asset, atoms, total, image.system)
        shown += [f"{asset}.{kind}" for kind in UNSETTLED_COLUMNS]
        residues[asset] = residues.get(asset, 0) + atoms

    ledger_columns = sorted(name for name in columns if is_ledger_column(name))
    if sorted(shown) != ledger_columns:
        raise BuildRefused(f"the trial balance shows columns {sorted(shown)}, the leaves have {ledger_columns}")
    for name, atoms in image.system.items():
        asset = name.rpartition(".")[0]
        residues[asset] = residues.get(asset, 0) + atoms
    for asset, residue in sorted(residues.items()):
        if residue:
            raise BuildRefused(f"{asset} is out of balance: users and system accounts sum to {residue}")
    if not 0 <= image.insurance_atoms < COLUMN_LIMIT:
        raise BuildRefused(f"the insurance fund is {image.insurance_atoms}")


class FundHolding(NamedTuple):
    """What the liquidity fund lends to, or owes, one pool: its shares, what the leaves add up to, holders.   [V-5]"""

    shares: int
    atoms: int
    holders: int


_NO_FUND = FundHolding(0, 0, 0)


def fund_holdings(
    image: Image, total: dict[str, int]
) -> tuple[dict[str, FundHolding], dict[str, FundHolding]]:
    """Asset → what the fund lends to its pool, and owes it, for users of all markets together.   [V-5]"""
    claims: dict[str, FundHolding] = {}
    debts: dict[str, FundHolding] = {}
    for line in image.markets:
        for held, column, shares, holders in (
            (claims, "claim_plus", line.claim_lend, line.winners),
            (debts, "claim_minus", line.claim_debt, line.losers),
        ):
            before = held.get(line.quote, _NO_FUND)
            atoms = total[_of_asset(f"{line.market}.{column}", line.market, total)]
            held[line.quote] = FundHolding(before.shares + shares, before.atoms + atoms, before.holders + holders)
    return claims, debts


def exchange_shares(system: dict[str, int], share: str) -> int:
    """Shares of a pool that the exchange's own accounts have, as posted: the liquidity fund's, the insurance fund's."""
    entries = ((name.rpartition("."), atoms) for name, atoms in system.items())
    return sum(atoms for (asset, _, kind), atoms in entries if asset == share and kind != POOL_SHARES)


def require_pool(
    pool: PoolLine,
    total: dict[str, int],
    system: dict[str, int],
    accounts: int,
    claimed: FundHolding | None = None,
    owed: FundHolding | None = None,
) -> None:
    """lent + fees = borrowed + idle + staked with nothing below zero, and the leaves' claims and debts are the pool's.

    Σ claims ≤ lent and Σ debts ≥ borrowed, each by less than one atom per holder; what nobody has shares of, nobody
    claims or owes. Users' claims on the liquidity fund (`claimed`, `owed`) are in it, and are all that the fund has.
    [B-4, B-14, R-6, V-5]
    """
    asset = pool.asset
    claimed, owed = claimed or _NO_FUND, owed or _NO_FUND
    for kind, atoms in (
        ("pool_lent", -pool.lent),
        ("pool_borrowed", pool.borrowed),
        ("pool_fees", -pool.fees),
        ("pool_yield", -pool.yields),
        ("staked", pool.staked),
    ):
        if system.get(f"{asset}.{kind}", 0) != atoms:
            raise BuildRefused(
                f"the pool of {asset} has {kind} {atoms}, the ledger {system.get(f'{asset}.{kind}', 0)}"
            )
    parts = (pool.lent, pool.borrowed, pool.fees, pool.staked, pool.yields, pool.lend_shares, pool.debt_shares)
    if min(*parts, pool.idle) < 0:
        raise BuildRefused(f"the pool of {asset} is below zero: idle {pool.idle} of {pool}")
    if not (0 <= pool.lenders <= accounts and 0 <= pool.borrowers <= accounts):
        raise BuildRefused(f"the pool of {asset} has {pool.lenders} lenders and {pool.borrowers} borrowers")
    for kind, held in (("lend", -claimed.shares), ("debt", owed.shares)):
        booked = system.get(f"{asset}.{kind}.{LIQUIDITY_FUND}", 0)
        if booked != held:
            raise BuildRefused(f"{asset}.{kind}: the liquidity fund has {booked} shares, its users' claims are {held}")
    claims, debts, uncollected = (total[_of_asset(f"{asset}.{kind}", asset, total)] for kind in POOL_COLUMNS)
    # What the insurance fund was left with of a loan is a claim like any other.   [L-8]
    own_shares = -claimed.shares - exchange_shares(system, f"{asset}.lend")
    own = mul_div_down(own_shares, pool.lent, pool.lend_shares) if own_shares > 0 and pool.lend_shares else 0
    claims, lenders = claims + claimed.atoms + own, pool.lenders + claimed.holders + (own_shares > 0)
    debts, borrowers = debts + owed.atoms, pool.borrowers + owed.holders
    if not _within_dust(pool.lent - claims, lenders):
        raise BuildRefused(f"{asset}: {lenders} lenders claim {claims}, the pool owes them {pool.lent}")
    if not _within_dust(debts - pool.borrowed, borrowers):
        raise BuildRefused(f"{asset}: {borrowers} borrowers owe {debts}, the pool is owed {pool.borrowed}")
    if uncollected > pool.yields:
        raise BuildRefused(f"{asset}: {uncollected} of yields are uncollected, the pool has {pool.yields}")


def require_market(market: MarketLine, total: dict[str, int], system: dict[str, int]) -> None:
    """Σ long = Σ short in whole lots; Σ cost and Σ unrealized PnL are what the exchange's own accounts of cost have.

    [R-6, C-5]
    """
    name = market.market
    longs, shorts, *signed = (total[_of_asset(f"{name}.{kind}", name, total)] for kind in MARKET_COLUMNS)
    if longs != shorts:
        raise BuildRefused(f"{name}: {longs} atoms are long, {shorts} are short")
    cost, pnl = signed[0] - signed[1], signed[2] - signed[3]
    own = sum(atoms for account, atoms in system.items() if account.rpartition(".")[0] == f"{name}.cost")
    if cost != -market.cost:
        raise BuildRefused(f"{name}: the costs of all positions are {cost}, the ledger says {-market.cost}")
    if cost != own or pnl != own:
        raise BuildRefused(f"{name}: Σ cost is {cost} and Σ PnL {pnl}, the exchange's own accounts hold {own}")
    if market.lot <= 0 or min(market.mark, market.settled) < 0 or (longs and not market.mark):
        raise BuildRefused(f"{name}: a lot of {market.lot} at {market.mark}, last settled at {market.settled}")
    if longs % market.lot or shorts % market.lot:
        raise BuildRefused(f"{name}: {longs} atoms long are no whole lots of {market.lot}")
    if min(market.claim_lend, market.claim_debt, market.winners, market.losers) < 0:
        raise BuildRefused(f"{name}: claims are below zero: {market}")


def require_markets(image: Image) -> None:
    """Each market once, in order, its mark in the price set; nothing of a perpetual is outside a line.   [R-5, R-6]"""
    names = [line.market for line in image.markets]
    if sorted(set(names)) != names:
        raise BuildRefused(f"markets must be in the order of their symbols, each once: {names}")
    priced = {price.asset for price in image.prices}
    pools = {pool.asset for pool in image.pools}
    for line in image.markets:
        if (line.market in priced) != (line.mark > 0):
            raise BuildRefused(f"{line.market}: the mark is {line.mark}, and the price set does not say so")
        if (line.claim_lend or line.claim_debt) and line.quote not in pools:
            raise BuildRefused(f"{line.market}: there are claims on the pool of {line.quote}, which is not there")
    for name, atoms in image.system.items():
        asset, _, kind = name.rpartition(".")
        if atoms and kind in UNSETTLED_ACCOUNTS and asset not in image.unsettled:
            raise BuildRefused(f"{name} holds {atoms}, but nobody's unsettled {asset} is shown")
    for asset, hole in image.pool_holes.items():
        if asset not in pools or not 0 <= hole < COLUMN_LIMIT:
            raise BuildRefused(f"the pool of {asset} has a hole of {hole}")


def require_amm(amm: AmmLine, total: dict[str, int], system: dict[str, int]) -> dict[str, int]:
    """Σ units, Σ custody and Σ debts of the leaves are the pool's, and its book's in the ledger; nothing is below zero.

    Returns what users have of each in the ledger, debits positive, so that it must be zero with all other accounts.
    [R-6, X-14]
    """
    name = amm.pool
    stated = (amm.units, amm.native_custody, amm.external_custody, amm.native_owed, amm.external_owed)
    if min(*stated, amm.native_balance, amm.external_balance, amm.native_fund, amm.external_fund) < 0:
        raise BuildRefused(f"the liquidity pool of {name} is below zero: {amm}")
    users: dict[str, int] = {}
    for kind, of_ledger, atoms in zip(AMM_COLUMNS, AMM_ASSETS, stated, strict=True):
        sums = total[_of_asset(f"{name}.{kind}", name, total)]
        if sums != atoms:
            raise BuildRefused(f"{name}.{kind}: the leaves sum to {sums}, the liquidity pool says {atoms}")
        asset = f"{name}.{of_ledger}"
        users[asset] = sums if of_ledger in AMM_DEBTS else -sums
        booked = system.get(f"{asset}.{AMM_BOOK}", 0)
        if booked != -users[asset]:
            raise BuildRefused(f"{asset}: the liquidity pool says {-users[asset]}, its book in the ledger {booked}")
    return users


def require_amms(image: Image) -> None:
    """Each liquidity pool once, in order; its coins are balance and custody, its fund's are the ledger's, the native
    asset's of all pools together; nothing of a liquidity pool is outside a line.   [R-6, X-14]
    """
    names = [amm.pool for amm in image.amms]
    if sorted(set(names)) != names:
        raise BuildRefused(f"liquidity pools must be in the order of their symbols, each once: {names}")
    if len({amm.native for amm in image.amms}) > 1 or any(amm.native in names for amm in image.amms):
        raise BuildRefused(f"liquidity pools have one native asset, and none of its own: {image.amms}")
    stated = amm_accounts(image.amms)
    for name, atoms in stated.items():
        if image.system.get(name, 0) != atoms:
            raise BuildRefused(f"{name}: the liquidity pools have {atoms}, the ledger {image.system.get(name, 0)}")
    parts = {f"{name}.{asset}" for name in names for asset in AMM_ASSETS}
    for name, atoms in image.system.items():
        asset, _, kind = name.rpartition(".")
        if not atoms or name in stated:
            continue
        if kind in (AMM_COINS, AMM_FUND) or (kind == AMM_BOOK) != (asset in parts):
            raise BuildRefused(f"{name} holds {atoms}, which no liquidity pool shows")


def amm_coins(amms: list[AmmLine]) -> dict[str, int]:
    """Asset → the coins of all liquidity pools: balances and custody, owed to providers and for positions.   [X-14]"""
    found: dict[str, int] = {}
    for amm in amms:
        found[amm.pool] = found.get(amm.pool, 0) + amm.external_balance + amm.external_custody
        found[amm.native] = found.get(amm.native, 0) + amm.native_balance + amm.native_custody
    return found


def amm_accounts(amms: list[AmmLine]) -> dict[str, int]:
    """`ASSET.account type` → what the lines say of liquidity pools' coins and funds, debits positive.   [X-14, X-12]"""
    found = {f"{asset}.{AMM_COINS}": -coins for asset, coins in amm_coins(amms).items()}
    for amm in amms:
        for asset, fund in ((amm.pool, amm.external_fund), (amm.native, amm.native_fund)):
            found[f"{asset}.{AMM_FUND}"] = found.get(f"{asset}.{AMM_FUND}", 0) - fund
    return found


def require_unsettled(asset: str, atoms: int, total: dict[str, int], system: dict[str, int]) -> None:
    """plus − minus is what the ledger says, and with what the exchange itself waits for it is zero.   [R-6, S-13]"""
    plus, minus, _recovery = (total[_of_asset(f"{asset}.{kind}", asset, total)] for kind in UNSETTLED_COLUMNS)
    if plus - minus != -atoms:
        raise BuildRefused(f"{asset}: users wait for {plus} and owe {minus}, the ledger says {-atoms}")
    own = sum(system.get(f"{asset}.{kind}", 0) for kind in UNSETTLED_ACCOUNTS)
    if atoms + own:
        raise BuildRefused(f"{asset}: unsettled equity sums to {atoms + own}: users {atoms}, the exchange {own}")
    # What lenders of any pool are paid for a debt that was written down waits where yields of this asset do.   [L-7]
    waiting = total[f"{asset}.recovery"] + total.get(f"{asset}.uncollected_yield", 0)
    there = -system.get(f"{asset}.pool_yield", 0)
    if waiting > there:
        raise BuildRefused(f"{asset}: {waiting} of yields and recoveries are uncollected, the pool has {there}")


def require_every_pool(image: Image) -> None:
    """No account of a money market is outside the pools' lines, and each pool has one.   [R-6]"""
    names = [pool.asset for pool in image.pools]
    if sorted(set(names)) != names:
        raise BuildRefused(f"pools must be in the order of their assets, each once: {names}")
    of_pools = {asset for name in names for asset in (name, f"{name}.lend", f"{name}.debt")}
    for name, atoms in image.system.items():
        asset, _, kind = name.rpartition(".")
        if atoms and kind in POOL_ACCOUNTS and asset not in of_pools:
            raise BuildRefused(f"{name} holds {atoms}, but {asset} has no pool")


def _within_dust(difference: int, holders: int) -> bool:
    """Less than one atom per holder, in the one direction that rounding goes.   [B-4]"""
    return 0 <= difference < max(1, holders)


def is_ledger_column(column: str) -> bool:
    """True for `ASSET.kind`, a quantity in atoms that the ledger holds; a valuation or a count has no dot."""
    return "." in column


def _of_asset(column: str, asset: str, known: dict[str, int]) -> str:
    if column not in known:
        raise BuildRefused(f"the trial balance names column {column}, which the leaves do not have")
    if column.partition(".")[0] != asset:
        raise BuildRefused(f"the trial balance shows column {column} under {asset}")
    return column
