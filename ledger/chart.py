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
    DEPOSIT_DUST = 32
    UNATTRIBUTED = 33
    POOL_SHARES = 34
    POOL_LENT = 35
    POOL_YIELD = 36
    FEE_INCOME = 48
    WITHDRAWAL_FEE_INCOME = 49
    POOL_FEES = 50
    NETWORK_FEES = 64
    INSURANCE_FUND = 80
    ROUNDING = 81
    OPERATOR_EQUITY = 82
    DUST = 83


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
    AccountKind.DEPOSIT_DUST: ChartLine(AccountType.LIABILITY, "deposit-dust/{}"),
    AccountKind.UNATTRIBUTED: ChartLine(AccountType.LIABILITY, "unattributed/{}"),
    AccountKind.POOL_SHARES: ChartLine(AccountType.EQUITY, "money-market/shares"),
    AccountKind.POOL_LENT: ChartLine(AccountType.LIABILITY, "money-market/lent"),
    AccountKind.POOL_YIELD: ChartLine(AccountType.LIABILITY, "money-market/yield"),
    AccountKind.FEE_INCOME: ChartLine(AccountType.INCOME, "income/trading-fees"),
    AccountKind.WITHDRAWAL_FEE_INCOME: ChartLine(AccountType.INCOME, "income/withdrawal-fees"),
    AccountKind.POOL_FEES: ChartLine(AccountType.INCOME, "money-market/fees"),
    AccountKind.NETWORK_FEES: ChartLine(AccountType.EXPENSE, "expense/network-fees"),
    AccountKind.INSURANCE_FUND: ChartLine(AccountType.EQUITY, "equity/insurance-fund"),
    AccountKind.ROUNDING: ChartLine(AccountType.EQUITY, "equity/rounding"),
    AccountKind.OPERATOR_EQUITY: ChartLine(AccountType.EQUITY, "equity/operator"),
    AccountKind.DUST: ChartLine(AccountType.EQUITY, "equity/dust"),
}

SHARE_BITS = 20
"""Asset ids end below 2^20; the bits above say what kind of share in that asset's money market an id means."""
SHARE_DECIMALS = 9
"""A new money market gives 10^9 shares for an atom, so shares are read with nine decimals more than their asset: `1`
SOL buys `1` SOL.lend on its first day.   [B-4]"""
_LEND_SHARE = 1 << SHARE_BITS
_DEBT_SHARE = 2 << SHARE_BITS

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


def underlying(asset_id: AssetId) -> AssetId:
    """The asset itself, or the one that a share is a share in."""
    return asset_id & (_LEND_SHARE - 1)


def asset_symbol(asset_id: AssetId, symbol: str) -> str:
    """The id's symbol, given its underlying's: `SOL`, `SOL.lend`, `SOL.debt`."""
    share = asset_id >> SHARE_BITS
    return symbol if not share else f"{symbol}.{ {1: 'lend', 2: 'debt'}.get(share, share)}"


def asset_decimals(asset_id: AssetId, decimals: int) -> int:
    """The id's decimals, given its underlying's."""
    return decimals + SHARE_DECIMALS if asset_id >> SHARE_BITS else decimals


def lent(subaccount_id: int) -> AccountId:
    """A subaccount's lend shares: a claim on the pool, a liability of the exchange.   [B-4]"""
    return AccountKind.LENT << OWNER_BITS | subaccount_id


def borrowed(subaccount_id: int) -> AccountId:
    """A subaccount's debt shares: what it owes the pool.   [B-4]"""
    return AccountKind.BORROWED << OWNER_BITS | subaccount_id


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
