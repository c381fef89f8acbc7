"""Money markets in an epoch: conservation per asset, claims and debts within dust, shares that a holder can check.

[R-2, R-6, R-12, B-4, B-14]
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from por import header, verifier
from por.canonical import BuildRefused, canonical_json
from por.epochs import Epoch, build_epoch
from por.header import row_from_text
from por.image import Account, Image, PoolLine, ReserveLine
from por.log import Log
from tests.por.samples import COLUMNS, MASTER, proof_of, republished, sample_image, signed

LEND_SHARES = {11: 10, 21: 21, 41: 2}
DEBT_SHARES = {21: 3, 31: 4}
POOL = PoolLine(
    asset="BTC", lent=100, borrowed=50, fees=7, staked=20, yields=9, lend_shares=33, debt_shares=7, lenders=3,
    borrowers=2,
)  # fmt: skip
UNCOLLECTED = {11: 5, 41: 2}


def pooled_image(**changes: Any) -> Image:
    """The sample with a money market of BTC: three lend 33 shares of 100 atoms, two owe 7 shares of 50."""
    image = sample_image()
    accounts = []
    for account in image.accounts:
        number = account.subaccount_id
        claim, debt = LEND_SHARES.get(number, 0) * 100 // 33, -(-DEBT_SHARES.get(number, 0) * 50 // 7)
        detail: dict[str, Any] = {"status": "open"}
        if number in LEND_SHARES:
            detail["lendShares"] = {"BTC": str(LEND_SHARES[number])}
        if number in DEBT_SHARES:
            detail["debtShares"] = {"BTC": str(DEBT_SHARES[number])}
        amounts = [*account.amounts, claim, debt, UNCOLLECTED.get(number, 0)]
        accounts.append(Account(number, account.user_id, amounts, canonical_json(detail)))
    fields: dict[str, Any] = {
        "columns": [*COLUMNS, "BTC.lent", "BTC.borrowed", "BTC.uncollected_yield"],
        "accounts": accounts,
        "pools": [POOL],
        "system": {
            **image.system,
            "BTC.custody": 8 + 100 + 7 + 9 - 50 - 20,
            "BTC.staked": 20,
            "BTC.pool_lent": -100,
            "BTC.pool_borrowed": 50,
            "BTC.pool_fees": -7,
            "BTC.pool_yield": -9,
            "BTC.lend.pool_shares": 33,
            "BTC.debt.pool_shares": -7,
        },
        "reserves": [
            ReserveLine("BTC", "custody", "sim/hot", 54),
            ReserveLine("BTC", "staked", "staked/1", 20),
            *image.reserves[1:],
        ],
    }
    return msgspec.structs.replace(image, **{**fields, **changes})


def built(**changes: Any) -> Epoch:
    return build_epoch(pooled_image(**changes), None, MASTER)


def with_leaf(subaccount_id: int, column: str, by: int) -> list[Account]:
    """The accounts with one amount changed."""
    image = pooled_image()
    at = image.columns.index(column)
    accounts = []
    for account in image.accounts:
        amounts = list(account.amounts)
        amounts[at] += by if account.subaccount_id == subaccount_id else 0
        accounts.append(msgspec.structs.replace(account, amounts=amounts))
    return accounts


def moved(**atoms: int) -> dict[str, int]:
    """The system accounts with some of BTC's changed."""
    system = dict(pooled_image().system)
    for name, change in atoms.items():
        system[f"BTC.{name}"] += change
    return system


def pool(**changes: int) -> list[PoolLine]:
    return [msgspec.structs.replace(POOL, **changes)]


def test_everybody_verifies_what_they_lend_and_owe() -> None:
    """[R-2, R-6]"""
    epoch = built()
    log = Log([epoch.header])

    for subaccount_id in (11, 12, 21, 31, 41):
        report, _ = verifier.verify(proof_of(log, epoch, subaccount_id))
        assert any("3 lend, 2 borrow" in line for line in report)
    assert (epoch.header.total("BTC.lent"), epoch.header.total("BTC.borrowed")) == (30 + 63 + 6, 22 + 29)
    assert row_from_text(epoch.header.text()) == epoch.header


def test_what_users_owe_does_not_lower_what_they_are_owed_and_is_no_reserve() -> None:
    """Never netted: loans stand beside the reserves, with a ratio of their own.   [R-12]"""
    epoch = built()

    btc = next(entry for entry in json.loads(epoch.reserves)["assets"] if entry["asset"] == "BTC")
    report, _ = verifier.verify(proof_of(Log([epoch.header]), epoch, 31))

    owed = 8 + 100 + 9
    assert (btc["liabilities"], btc["custody"], btc["staked"]) == (str(owed), "54", "20")
    assert (btc["reserves"], btc["loans"]) == ("74", "50")
    assert btc["ratio"] == str(74 * 10**9 // owed) and btc["ratioWithLoans"] == str(124 * 10**9 // owed)
    line = next(line for line in report if "BTC" in line and "lent on to borrowers" in line)
    assert "reserves 74 atoms (of which 20 atoms staked), owed 117 atoms" in line, line
    assert "63.24 %" in line and "105.98 %" in line and "SHORTFALL" not in line


def test_reserves_and_loans_together_below_what_is_owed_are_a_shortfall() -> None:
    """[R-12]"""
    epoch = built(reserves=[ReserveLine("BTC", "custody", "sim/hot", 66), *sample_image().reserves[1:]])

    report, _ = verifier.verify(proof_of(Log([epoch.header]), epoch, 31))

    assert any("BTC" in line and "SHORTFALL" in line for line in report)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"accounts": with_leaf(21, "BTC.lent", 2)}, "3 lenders claim 101, the pool owes them 100"),
    ({"accounts": with_leaf(21, "BTC.lent", -2)}, "3 lenders claim 97, the pool owes them 100"),
    ({"accounts": with_leaf(21, "BTC.borrowed", 1)}, "2 borrowers owe 52, the pool is owed 50"),
    ({"accounts": with_leaf(21, "BTC.borrowed", -2)}, "2 borrowers owe 49, the pool is owed 50"),
    ({"accounts": with_leaf(41, "BTC.uncollected_yield", 3)}, "10 of yields are uncollected, the .* 9"),
    ({"pools": pool(lent=101)}, "pool_lent -101, the ledger -100"),
    ({"pools": pool(borrowed=49)}, "pool_borrowed 49, the ledger 50"),
    ({"pools": pool(fees=8)}, "pool_fees -8, the ledger -7"),
    ({"pools": pool(staked=0)}, "staked 0, the ledger 20"),
    ({"pools": pool(yields=10)}, "pool_yield -10, the ledger -9"),
    ({"pools": pool(lend_shares=34)}, "BTC.lend is out of balance"),
    ({"pools": pool(debt_shares=6)}, "BTC.debt is out of balance"),
    ({"pools": pool(lenders=6)}, "6 lenders and 2 borrowers"),
    ({"pools": pool(staked=58), "system": moved(staked=38, custody=-38)}, "below zero: idle -1"),
    ({"pools": []}, "BTC.staked holds 20, but BTC has no pool"),
    ({"pools": [POOL, POOL]}, "in the order of their assets, each once"),
    ({"system": moved(custody=1)}, "BTC is out of balance: users and system accounts sum to 1"),
    ({"columns": [*COLUMNS, "BTC.lent", "BTC.borrowed", "BTC.other"]}, "names column BTC.uncollected_yield"),
]


@pytest.mark.parametrize("changes, says", REFUSED, ids=[says for _changes, says in REFUSED])
def test_the_builder_refuses_a_pool_that_does_not_balance(changes: dict[str, Any], says: str) -> None:
    """[R-6, B-4, B-14]"""
    with pytest.raises(BuildRefused, match=says):
        built(**changes)


LIES: list[tuple[str, Any, str]] = [
    ("lent", "101", "are not 50 borrowed, 37 idle and 20 staked"),
    ("idle", "38", "are not 50 borrowed, 38 idle and 20 staked"),
    ("idle", "-1", "not an amount"),
    ("yields", "8", "states -8 for pool_yield, the ledger -9"),
    ("lenders", 6, "more lend or borrow than there are accounts"),
    ("lenders", 1, "1 lenders claim 99, the pool owes them 100"),
    ("borrowers", 1, "1 borrowers owe 51, the pool is owed 50"),
    ("lendShares", "32", "your 21 lendShares of BTC are worth 65, your leaf says 63"),
    ("lendShares", "20", "you have 21 lendShares of BTC, all together 20"),
    ("debtShares", "8", "your 3 debtShares of BTC are worth 19, your leaf says 22"),
    ("asset", "XRP", "the pool states -100 for pool_lent, the ledger 0"),
    ("extra", "1", "pool must have exactly the fields"),
]


@pytest.mark.parametrize("field, value, says", LIES, ids=[f"{field} {value}" for field, value, _says in LIES])
def test_the_verifier_refuses_a_header_that_lies_about_a_pool(field: str, value: Any, says: str) -> None:
    """The exchange signs whatever it likes: the customer's own leaf and the totals must fit.   [R-6]"""
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 21)
    header = json.loads(proof["header"])
    header["pools"][0][field] = value

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.verify(signed(proof, header))


def test_the_verifier_refuses_pools_that_hide_one_or_name_one_twice() -> None:
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 12)
    header = json.loads(proof["header"])

    with pytest.raises(verifier.NotVerified, match=r"is not zero, but BTC\.debt has no pool"):
        verifier.verify(signed(proof, {**header, "pools": []}))
    with pytest.raises(verifier.NotVerified, match="twice or out of order"):
        verifier.verify(signed(proof, {**header, "pools": header["pools"] * 2}))


def test_both_sides_of_a_pool_made_up_together_are_noticed_in_the_ledger() -> None:
    """A larger pool with a larger account of it: the asset no longer sums to zero.   [R-6]"""
    epoch = built()
    lie = msgspec.structs.replace(POOL, fees=17)
    log, forged = republished(epoch, pools=[lie], system={**epoch.header.system, "BTC.pool_fees": -17})

    with pytest.raises(verifier.NotVerified, match="BTC is out of balance"):
        verifier.verify(proof_of(log, forged, 21))


def test_loans_in_the_reserves_statement_are_those_of_the_pool() -> None:
    """[R-12]"""
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 21)
    statement = json.loads(proof["reserves"])
    statement["assets"][0]["loans"] = "60"

    with pytest.raises(verifier.NotVerified, match="loans of 50 are stated as 60"):
        verifier.verify(signed(proof, json.loads(proof["header"]), reserves=canonical_json(statement)))


DISHONEST = [(changes, says) for changes, says in REFUSED if "names column" not in says]


@pytest.mark.parametrize("changes, says", DISHONEST, ids=[says for _changes, says in DISHONEST])
def test_what_the_builder_refuses_the_verifier_refuses_from_a_builder_that_does_not(
    changes: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange runs whatever builder it likes; somebody who neither lends nor borrows still notices.   [R-6]"""
    monkeypatch.setattr(header, "require_conservation", lambda *_: None)
    epoch = built(**changes)

    with pytest.raises(verifier.NotVerified):
        verifier.verify(proof_of(Log([epoch.header]), epoch, 12))
