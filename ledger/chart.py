"""The chart of accounts: which kinds of account exist, of which type, and how an account id is made and read.

An account id is one 56-bit integer, `kind << 40 | owner`: the kind says what it is (a subaccount's available balance,
a custody wallet), the owner whose. It needs no table to be understood and sorts by kind.   [A-2]
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

AccountId = int
AssetId = int

OWNER_BITS = 40
OWNER_MASK = (1 << OWNER_BITS) - 1


class AccountType(IntEnum):
    """The type gives the normal side: debit for assets and expenses, credit for the others.   [A-1]"""

    ASSET = 1
    LIABILITY = 2
    EQUITY = 3
    INCOME = 4
    EXPENSE = 5


class AccountKind(IntEnum):
    """Every kind of account there is. Numbers are part of the journal encoding: never reuse one.   [A-2]"""

    CUSTODY = 1
    RECEIVABLE = 2
    STAKED = 3
    POOL_BORROWED = 4
    AVAILABLE = 16
    WITHDRAWING = 17
    LENT = 18
    BORROWED = 19
    POSITION = 20
    UNSETTLED = 21
    CLAIM = 22
    AMM_UNITS = 23
    AMM_CUSTODY = 24
    AMM_DEBT = 25
    DEPOSIT_DUST = 32
    UNATTRIBUTED = 33
    POOL_SHARES = 34
    POOL_LENT = 35
    POOL_YIELD = 36
    LIQUIDITY_FUND = 37
    AMM_POOL = 39
    FEE_INCOME = 48
    WITHDRAWAL_FEE_INCOME = 49
    POOL_FEES = 50
    NETWORK_FEES = 64
    INSURANCE_FUND = 80
    ROUNDING = 81
    OPERATOR_EQUITY = 82
    DUST = 83
    BACKSTOP_FUND = 84
    INSURANCE_UNSETTLED = 85
    ROUNDING_UNSETTLED = 86
    AMM_FUND = 87
    AMM_BOOK = 88


class ChartLine(NamedTuple):
    type: AccountType
    name: str
    """Path with `{}` where the owner stands; custody owners print as chain/wallet."""


CHART: dict[int, ChartLine] = {
    AccountKind.CUSTODY: ChartLine(AccountType.ASSET, "custody/{}"),
    AccountKind.RECEIVABLE: ChartLine(AccountType.ASSET, "receivable/subaccount/{}"),
    AccountKind.STAKED: ChartLine(AccountType.ASSET, "staked/{}"),
    AccountKind.POOL_BORROWED: ChartLine(AccountType.ASSET, "money-market/borrowed"),
    AccountKind.AVAILABLE: ChartLine(AccountType.LIABILITY, "subaccount/{}/available"),
    AccountKind.WITHDRAWING: ChartLine(AccountType.LIABILITY, "subaccount/{}/withdrawing"),
    AccountKind.LENT: ChartLine(AccountType.LIABILITY, "subaccount/{}/lent"),
    AccountKind.BORROWED: ChartLine(AccountType.ASSET, "subaccount/{}/borrowed"),
    AccountKind.POSITION: ChartLine(AccountType.LIABILITY, "subaccount/{}/position"),
    AccountKind.UNSETTLED: ChartLine(AccountType.LIABILITY, "subaccount/{}/unsettled"),
    AccountKind.CLAIM: ChartLine(AccountType.LIABILITY, "subaccount/{}/claim"),
    AccountKind.AMM_UNITS: ChartLine(AccountType.LIABILITY, "subaccount/{}/pool-units"),
    AccountKind.AMM_CUSTODY: ChartLine(AccountType.LIABILITY, "subaccount/{}/pool-custody"),
    AccountKind.AMM_DEBT: ChartLine(AccountType.ASSET, "subaccount/{}/pool-debt"),
    AccountKind.DEPOSIT_DUST: ChartLine(AccountType.LIABILITY, "deposit-dust/{}"),
    AccountKind.UNATTRIBUTED: ChartLine(AccountType.LIABILITY, "unattributed/{}"),
    AccountKind.POOL_SHARES: ChartLine(AccountType.EQUITY, "money-market/shares"),
    AccountKind.POOL_LENT: ChartLine(AccountType.LIABILITY, "money-market/lent"),
    AccountKind.POOL_YIELD: ChartLine(AccountType.LIABILITY, "money-market/yield"),
    AccountKind.LIQUIDITY_FUND: ChartLine(AccountType.LIABILITY, "liquidity-fund"),
    AccountKind.AMM_POOL: ChartLine(AccountType.LIABILITY, "pool/{}"),
    AccountKind.FEE_INCOME: ChartLine(AccountType.INCOME, "income/trading-fees"),
    AccountKind.WITHDRAWAL_FEE_INCOME: ChartLine(AccountType.INCOME, "income/withdrawal-fees"),
    AccountKind.POOL_FEES: ChartLine(AccountType.INCOME, "money-market/fees"),
    AccountKind.NETWORK_FEES: ChartLine(AccountType.EXPENSE, "expense/network-fees"),
    AccountKind.INSURANCE_FUND: ChartLine(AccountType.EQUITY, "equity/insurance-fund"),
    AccountKind.ROUNDING: ChartLine(AccountType.EQUITY, "equity/rounding"),
    AccountKind.OPERATOR_EQUITY: ChartLine(AccountType.EQUITY, "equity/operator"),
    AccountKind.DUST: ChartLine(AccountType.EQUITY, "equity/dust"),
    AccountKind.BACKSTOP_FUND: ChartLine(AccountType.EQUITY, "equity/backstop-fund"),
    AccountKind.INSURANCE_UNSETTLED: ChartLine(AccountType.EQUITY, "equity/insurance-unsettled"),
    AccountKind.ROUNDING_UNSETTLED: ChartLine(AccountType.EQUITY, "equity/rounding-unsettled"),
    AccountKind.AMM_FUND: ChartLine(AccountType.EQUITY, "equity/pool/{}/fund"),
    AccountKind.AMM_BOOK: ChartLine(AccountType.EQUITY, "equity/pool/{}/book"),
}

SHARE_BITS = 20
"""Asset ids end below 2^20; the bits above say what kind of share in that asset's money market an id means."""
SHARE_DECIMALS = 9
"""A new money market gives 10^9 shares for an atom, so shares are read with nine decimals more than their asset: `1`
SOL buys `1` SOL.lend on its first day.   [B-4]"""
_LEND_SHARE = 1 << SHARE_BITS
_DEBT_SHARE = 2 << SHARE_BITS
_CONTRACTS = 3 << SHARE_BITS
_COST = 4 << SHARE_BITS
_CLAIM_LEND = 5 << SHARE_BITS
_CLAIM_DEBT = 6 << SHARE_BITS
_POOL_UNITS = 7 << SHARE_BITS
_NATIVE_CUSTODY = 8 << SHARE_BITS
_EXTERNAL_CUSTODY = 9 << SHARE_BITS
_NATIVE_OWED = 10 << SHARE_BITS
_EXTERNAL_OWED = 11 << SHARE_BITS
_MARKET_ID_MASK = (1 << SHARE_BITS) - 1

CUSTODY_WALLET_BITS = 32
HOT_WALLET = 0
"""Wallet 0 of a chain is the hot wallet; wallet n is the deposit address of subaccount n."""


def account_id(kind: AccountKind, owner: int = 0) -> AccountId:
    assert 0 <= owner <= OWNER_MASK, f"owner {owner} of a {kind.name} account does not fit {OWNER_BITS} bits"
    return kind << OWNER_BITS | owner


def custody_account(chain_id: int, wallet: int) -> AccountId:
    """The custody account of one wallet on one chain.   [A-2, D-11]"""
    assert 0 < chain_id < 256 and 0 <= wallet < 1 << CUSTODY_WALLET_BITS, f"no such wallet: chain {chain_id}, {wallet}"
    return account_id(AccountKind.CUSTODY, chain_id << CUSTODY_WALLET_BITS | wallet)


# Made once: looking a member up on its enum is what would cost most below.
_AVAILABLE = int(AccountKind.AVAILABLE) << OWNER_BITS


def available(subaccount_id: int) -> AccountId:
    """What a subaccount holds, what its open orders reserve included (a hold is an encumbrance, not a movement)."""
    return _AVAILABLE | subaccount_id


def lend_share(asset_id: AssetId) -> AssetId:
    """`X.lend`: shares of what X's money market owes its lenders.   [A-2, B-4]"""
    return _LEND_SHARE | asset_id


def debt_share(asset_id: AssetId) -> AssetId:
    """`X.debt`: shares of what X's money market is owed.   [A-2, B-4]"""
    return _DEBT_SHARE | asset_id


def contracts(market_id: int) -> AssetId:
    """`SOL_USDC_PERP`: a perpetual's position quantity as an asset, in atoms of the base; a long is owed them. [A-2]"""
    return _CONTRACTS | market_id


def cost(market_id: int) -> AssetId:
    """`SOL_USDC_PERP.cost`: what positions cost, in atoms of the quote, counted from the last settled mark.  [A-2]"""
    return _COST | market_id


def claim_lend(market_id: int) -> AssetId:
    """`SOL_USDC_PERP.claim`: lend shares of USDC that the liquidity fund holds for winners of a market.   [V-2]"""
    return _CLAIM_LEND | market_id


def claim_debt(market_id: int) -> AssetId:
    """`SOL_USDC_PERP.claim-debt`: debt shares of USDC that the liquidity fund owes for losers of a market.   [V-2]"""
    return _CLAIM_DEBT | market_id


def pool_units(pool_id: int) -> AssetId:
    """`USDC.pool-units`: what a liquidity pool's providers own it by. A pool's id is its external asset's.   [X-3]"""
    return _POOL_UNITS | pool_id


def native_custody(pool_id: int) -> AssetId:
    """`USDC.native-custody`: the native asset that a pool keeps for its open positions, in its atoms.   [X-5, X-14]"""
    return _NATIVE_CUSTODY | pool_id


def external_custody(pool_id: int) -> AssetId:
    """`USDC.custody`: the external asset that a pool keeps for its open positions, in its atoms.   [X-5, X-14]"""
    return _EXTERNAL_CUSTODY | pool_id


def native_owed(pool_id: int) -> AssetId:
    """`USDC.native-owed`: the native asset that positions owe a pool, interest left out.   [X-5, X-14]"""
    return _NATIVE_OWED | pool_id


def external_owed(pool_id: int) -> AssetId:
    """`USDC.owed`: the external asset that positions owe a pool, interest left out.   [X-5, X-14]"""
    return _EXTERNAL_OWED | pool_id


def is_of_amm(asset_id: AssetId) -> bool:
    """Whether the id is a liquidity pool's units, or custody or debts of its positions."""
    return asset_id >= _POOL_UNITS


def is_native_of_amm(asset_id: AssetId) -> bool:
    """Whether the id counts a pool's native asset: units do, since the first provider gets one for each atom.  [X-3]"""
    return asset_id & ~_MARKET_ID_MASK in (_POOL_UNITS, _NATIVE_CUSTODY, _NATIVE_OWED)


def pool_of(asset_id: AssetId) -> int:
    """The liquidity pool, that is the external asset, whose units, custody or debts the id means."""
    return asset_id & _MARKET_ID_MASK


def is_of_market(asset_id: AssetId) -> bool:
    """Whether the id is a market's contracts, cost or claims, rather than an asset or a share in its pool."""
    return _CONTRACTS <= asset_id < _POOL_UNITS


def market_of(asset_id: AssetId) -> int:
    """The market whose contracts, cost or claims the id means."""
    return asset_id & _MARKET_ID_MASK


def is_pool_share(asset_id: AssetId) -> bool:
    """Whether the id is `X.lend` or `X.debt`, rather than atoms of X or something of a market.   [B-4]"""
    return _LEND_SHARE <= asset_id < _CONTRACTS


def underlying(asset_id: AssetId) -> AssetId:
    """The asset itself, or the one that a share is a share in; a market's own assets are their own."""
    return asset_id if asset_id >= _CONTRACTS else asset_id & (_LEND_SHARE - 1)


_SUFFIX = {
    1: ".lend",
    2: ".debt",
    3: "",
    4: ".cost",
    5: ".claim",
    6: ".claim-debt",
    7: ".pool-units",
    8: ".native-custody",
    9: ".custody",
    10: ".native-owed",
    11: ".owed",
}
_SHARE_CLASSES = (1, 2, 5, 6)


def asset_symbol(asset_id: AssetId, symbol: str) -> str:
    """The id's symbol, given its asset's or its market's: `SOL`, `SOL.lend`, `SOL_USDC_PERP.cost`, `SOL.pool-units`."""
    share = asset_id >> SHARE_BITS
    return symbol if not share else symbol + _SUFFIX.get(share, f".{share}")


def asset_decimals(asset_id: AssetId, decimals: int) -> int:
    """The id's decimals, given those of its asset, or (contracts) its market's base, (cost, claims) its quote, or of
    the native asset where the id counts that (`is_native_of_amm`)."""
    return decimals + SHARE_DECIMALS if asset_id >> SHARE_BITS in _SHARE_CLASSES else decimals


def lent(subaccount_id: int) -> AccountId:
    """A subaccount's lend shares: a claim on the pool, a liability of the exchange.   [B-4]"""
    return AccountKind.LENT << OWNER_BITS | subaccount_id


def borrowed(subaccount_id: int) -> AccountId:
    """A subaccount's debt shares: what it owes the pool.   [B-4]"""
    return AccountKind.BORROWED << OWNER_BITS | subaccount_id


def position(subaccount_id: int) -> AccountId:
    """A subaccount's perpetual positions: contracts and their cost. A long, and a gain, are credits.   [A-2]"""
    return AccountKind.POSITION << OWNER_BITS | subaccount_id


def unsettled(subaccount_id: int) -> AccountId:
    """Settled gains that nobody has paid yet (credit), or losses that it has not paid (debit), in USDC.   [S-13]"""
    return AccountKind.UNSETTLED << OWNER_BITS | subaccount_id


def claim(subaccount_id: int) -> AccountId:
    """What the liquidity fund holds, or owes, for a subaccount, in claim shares per market.   [V-1, V-2]"""
    return AccountKind.CLAIM << OWNER_BITS | subaccount_id


def units_held(subaccount_id: int) -> AccountId:
    """A subaccount's units in liquidity pools: what the pools owe it.   [X-3]"""
    return AccountKind.AMM_UNITS << OWNER_BITS | subaccount_id


def in_custody(subaccount_id: int) -> AccountId:
    """What liquidity pools keep for a subaccount's open positions.   [X-5, X-14]"""
    return AccountKind.AMM_CUSTODY << OWNER_BITS | subaccount_id


def owed_to_pools(subaccount_id: int) -> AccountId:
    """What a subaccount's open positions owe liquidity pools, unpaid interest left out.   [X-5, X-14]"""
    return AccountKind.AMM_DEBT << OWNER_BITS | subaccount_id


def amm_pool(pool_id: int) -> AccountId:
    """A liquidity pool's coins: its balance and what it keeps for positions, per asset.   [X-14]"""
    return AccountKind.AMM_POOL << OWNER_BITS | pool_id


def amm_fund(pool_id: int) -> AccountId:
    """What a liquidity pool's fund has: its share of interest and of forced closes.   [X-9, X-11, X-12]"""
    return AccountKind.AMM_FUND << OWNER_BITS | pool_id


def amm_book(pool_id: int) -> AccountId:
    """The other side of a liquidity pool's units, custody and debts: what they add up to.   [X-14]"""
    return AccountKind.AMM_BOOK << OWNER_BITS | pool_id


def withdrawing(subaccount_id: int) -> AccountId:
    """What has left a subaccount's available balance for a withdrawal that is not final.   [D-8]"""
    return AccountKind.WITHDRAWING << OWNER_BITS | subaccount_id


FEE_INCOME = account_id(AccountKind.FEE_INCOME)
WITHDRAWAL_FEE_INCOME = account_id(AccountKind.WITHDRAWAL_FEE_INCOME)
NETWORK_FEES = account_id(AccountKind.NETWORK_FEES)
INSURANCE_FUND = account_id(AccountKind.INSURANCE_FUND)
ROUNDING = account_id(AccountKind.ROUNDING)
OPERATOR_EQUITY = account_id(AccountKind.OPERATOR_EQUITY)
POOL_BORROWED = account_id(AccountKind.POOL_BORROWED)
POOL_LENT = account_id(AccountKind.POOL_LENT)
POOL_FEES = account_id(AccountKind.POOL_FEES)
POOL_SHARES = account_id(AccountKind.POOL_SHARES)
POOL_YIELD = account_id(AccountKind.POOL_YIELD)
DUST = account_id(AccountKind.DUST)
LIQUIDITY_FUND = account_id(AccountKind.LIQUIDITY_FUND)
BACKSTOP_FUND = account_id(AccountKind.BACKSTOP_FUND)
INSURANCE_UNSETTLED = account_id(AccountKind.INSURANCE_UNSETTLED)
ROUNDING_UNSETTLED = account_id(AccountKind.ROUNDING_UNSETTLED)


def kind_of(account: AccountId) -> int:
    return account >> OWNER_BITS


def owner_of(account: AccountId) -> int:
    return account & OWNER_MASK


def account_type(account: AccountId) -> AccountType:
    return CHART[kind_of(account)].type


def account_name(account: AccountId) -> str:
    """The account's path, for people: `subaccount/7/available`, `custody/1/hot`, `custody/2/deposit/7`."""
    line = CHART.get(kind_of(account))
    if line is None:
        return f"unknown/{kind_of(account)}/{owner_of(account)}"
    if kind_of(account) == AccountKind.CUSTODY:
        chain, wallet = divmod(owner_of(account), 1 << CUSTODY_WALLET_BITS)
        return line.name.format(f"{chain}/hot" if wallet == HOT_WALLET else f"{chain}/deposit/{wallet}")
    return line.name.format(owner_of(account))
