"""Liquidity pools in an epoch: units, custody and debts are the pools', coins what they hold; each lie is refused.

[R-2, R-5, R-6, R-12, X-3, X-5, X-14]
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from por import verifier
from por.canonical import BuildRefused, canonical_json
from por.epochs import Epoch, build_epoch
from por.header import row_from_text
from por.image import Account, AmmLine, Image, ReserveLine
from por.log import Log
from tests.por.samples import COLUMNS, MASTER, proof_of, sample_image, signed
from tests.por.test_markets import market_image

KINDS = ("amm_units", "amm_native_custody", "amm_external_custody", "amm_native_owed", "amm_external_owed")
AMM_COLUMNS = [f"{pool}.{kind}" for pool in ("BTC", "USDC") for kind in KINDS]
"""ROWAN, which nobody has outside of the pools, against BTC and against USDC."""
BTC_POOL = AmmLine(
    pool="BTC", native="ROWAN", native_balance=50, external_balance=7, native_custody=0, external_custody=2,
    native_owed=9, external_owed=0, units=40, native_fund=0, external_fund=1,
)  # fmt: skip
USDC_POOL = AmmLine(
    pool="USDC", native="ROWAN", native_balance=700, external_balance=2_000, native_custody=280, external_custody=0,
    native_owed=0, external_owed=400, units=1_000, native_fund=7, external_fund=0,
)  # fmt: skip
LEAVES = {11: (40, 0, 0, 0, 0, 600, 0, 0, 0, 0), 12: (0, 0, 2, 9, 0, 0, 0, 0, 0, 0),
          21: (0, 0, 0, 0, 0, 400, 30, 0, 0, 50), 31: (0, 0, 0, 0, 0, 0, 250, 0, 0, 350)}  # fmt: skip


def long(pool: str, collateral: str, owed: int, custody: int) -> dict[str, str]:
    return {"pool": pool, "collateralAsset": collateral, "owed": str(owed), "custody": str(custody), "unpaid": "3"}


LONGS = {12: {"4": long("BTC", "ROWAN", 9, 2)}, 21: {"5": long("USDC", "USDC", 50, 30)},
         31: {"6": long("USDC", "USDC", 100, 80), "7": long("USDC", "USDC", 250, 170)}}  # fmt: skip


def leaf_of(account: Account) -> Account:
    number = account.subaccount_id
    detail = json.loads(account.detail)
    if number in LONGS:
        detail["longs"] = LONGS[number]
    amounts = [*account.amounts, *LEAVES.get(number, (0,) * 10)]
    return Account(number, account.user_id, amounts, canonical_json(detail))


def amm_image(base: Image | None = None, **changes: Any) -> Image:
    """The sample with two pools: two providers, four positions of three accounts."""
    image = sample_image() if base is None else base
    fields: dict[str, Any] = {
        "columns": [*image.columns, *AMM_COLUMNS],
        "accounts": [leaf_of(account) for account in image.accounts],
        "parameters": '{"BTC":{"decimals":0},"ROWAN":{"decimals":1},"USDC":{"decimals":0}}',
        "amms": [BTC_POOL, USDC_POOL],
        "system": {
            **image.system,
            "BTC.custody": image.system["BTC.custody"] + 10,
            "USDC.custody": image.system["USDC.custody"] + 2_000,
            "ROWAN.custody": 1_037,
            "BTC.amm_pool": -9,
            "USDC.amm_pool": -2_000,
            "ROWAN.amm_pool": -50 - 980,
            "BTC.amm_fund": -1,
            "ROWAN.amm_fund": -7,
            "BTC.pool-units.amm_book": 40,
            "BTC.custody.amm_book": 2,
            "BTC.native-owed.amm_book": -9,
            "USDC.pool-units.amm_book": 1_000,
            "USDC.native-custody.amm_book": 280,
            "USDC.owed.amm_book": -400,
        },
        "reserves": [
            ReserveLine("BTC", "custody", "sim/hot", image.reserves[0].atoms + 10),
            ReserveLine("USDC", "custody", "sim/hot", image.reserves[1].atoms + 2_000),
            image.reserves[2],
            ReserveLine("ROWAN", "custody", "sim/hot", 1_037),
        ],
    }
    return msgspec.structs.replace(image, **{**fields, **changes})


def built(**changes: Any) -> Epoch:
    return build_epoch(amm_image(**changes), None, MASTER)


def with_leaf(subaccount_id: int, **columns: int) -> list[Account]:
    """The accounts with some amounts of one changed, `usdc_` or `btc_` before the kind."""
    image = amm_image()
    accounts = []
    for account in image.accounts:
        amounts = list(account.amounts)
        for name, by in columns.items():
            pool, _, kind = name.partition("_")
            at = image.columns.index(f"{pool.upper()}.{kind}")
            amounts[at] += by if account.subaccount_id == subaccount_id else 0
        accounts.append(msgspec.structs.replace(account, amounts=amounts))
    return accounts


def moved(**atoms: int) -> dict[str, int]:
    """The system accounts with some changed; `__` stands for the dot, `_of_` for the one before the account."""
    system = dict(amm_image().system)
    for name, change in atoms.items():
        key = name.replace("_of_", ".").replace("__", "-")
        system[key] = system.get(key, 0) + change
    return system


def usdc_pool(**changes: Any) -> list[AmmLine]:
    return [BTC_POOL, msgspec.structs.replace(USDC_POOL, **changes)]


def test_everybody_verifies_units_custody_and_debts() -> None:
    """[R-2, R-6, X-14]"""
    epoch = built()
    log = Log([epoch.header])

    for subaccount_id in (11, 12, 21, 31, 41):
        report, _ = verifier.verify(proof_of(log, epoch, subaccount_id))
        words = "balance 70 ROWAN, custody 28 ROWAN; owed by positions 0 ROWAN, fund 0.7 ROWAN"
        assert f"  ROWAN:USDC       {words}" in report
        assert any("Your positions add up" in line for line in report)
    report, _ = verifier.verify(proof_of(log, epoch, 11))
    assert "  Your units are 60.00 % of ROWAN:USDC, of its depths 42 ROWAN and 1440 USDC." in report
    assert any(line.split() == ["USDC.amm_units", "60"] for line in report), report
    assert row_from_text(epoch.header.text()) == epoch.header


def test_coins_in_liquidity_pools_are_owed_and_their_funds_are_the_exchanges() -> None:
    """[R-12] What positions owe is no coin that left: reserves cover all that is owed without it."""
    before, after = (
        {entry["asset"]: entry for entry in json.loads(epoch.reserves)["assets"]}
        for epoch in (build_epoch(sample_image(), None, MASTER), built())
    )

    for asset, coins in (("BTC", 9), ("USDC", 2_000)):
        assert int(after[asset]["liabilities"]) == int(before[asset]["liabilities"]) + coins
        assert after[asset]["loans"] == "0"
    assert (after["ROWAN"]["liabilities"], after["ROWAN"]["reserves"]) == ("1030", "1037")


def test_headers_without_liquidity_pools_are_what_they_always_were() -> None:
    """R-5"""
    epochs = (build_epoch(image, None, MASTER) for image in (sample_image(), market_image(), amm_image()))

    texts = [json.loads(epoch.header.text()) for epoch in epochs]
    assert [text["version"] for text in texts] == [1, 2, 3]
    assert ["liquidityPools" in text for text in texts] == [False, False, True]


def test_a_log_goes_on_from_one_version_to_the_next_and_has_all_at_once() -> None:
    log = Log()
    images = [sample_image(), market_image(), amm_image(market_image(), parameters=(
        '{"BTC":{"decimals":0,"weight":"900000000"},"ROWAN":{"decimals":1},"USDC":{"decimals":0}}'
    ))]  # fmt: skip
    for number, image in enumerate(images):
        if number:
            at_us = images[0].at_us + number
            prices = [msgspec.structs.replace(price, at_us=at_us) for price in image.prices]
            image = msgspec.structs.replace(image, hour=None, at_us=at_us, opened=0, prices=prices)
        epoch = build_epoch(image, log.last, MASTER)
        log.append(epoch.header)
        assert verifier.verify(proof_of(log, epoch, 21))[0][0].startswith("VERIFIED")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"accounts": with_leaf(11, usdc_amm_units=1)}, "USDC.amm_units: the leaves sum to 1001, the liquidity pool"),
    ({"accounts": with_leaf(21, usdc_amm_native_custody=-1)}, "leaves sum to 279, the liquidity pool says 280"),
    ({"accounts": with_leaf(12, btc_amm_external_custody=1)}, "leaves sum to 3, the liquidity pool says 2"),
    ({"accounts": with_leaf(12, btc_amm_native_owed=1)}, "leaves sum to 10, the liquidity pool says 9"),
    ({"accounts": with_leaf(31, usdc_amm_external_owed=-1)}, "leaves sum to 399, the liquidity pool says 400"),
    ({"amms": usdc_pool(units=999)}, "USDC.amm_units: the leaves sum to 1000, the liquidity pool says 999"),
    ({"amms": usdc_pool(native_balance=701)}, "ROWAN.amm_pool: the liquidity pools have -1031, the ledger -1030"),
    ({"amms": usdc_pool(external_balance=1_999)}, "USDC.amm_pool: the liquidity pools have -1999, the ledger -2000"),
    ({"amms": usdc_pool(native_fund=8)}, "ROWAN.amm_fund: the liquidity pools have -8, the ledger -7"),
    ({"amms": usdc_pool(external_fund=-1)}, "the liquidity pool of USDC is below zero"),
    ({"amms": usdc_pool(native_balance=-1)}, "the liquidity pool of USDC is below zero"),
    ({"amms": usdc_pool(native="USDC")}, "liquidity pools have one native asset, and none of its own"),
    ({"amms": usdc_pool(native="XRP")}, "liquidity pools have one native asset, and none of its own"),
    ({"amms": [USDC_POOL, BTC_POOL]}, "liquidity pools must be in the order of their symbols"),
    ({"amms": [BTC_POOL]}, "amm_pool|which no liquidity pool shows|the leaves have"),
    ({"amms": [], "system": sample_image().system, "reserves": sample_image().reserves}, "the leaves have"),
    ({"system": moved(USDC_of_pool__units_of_amm_book=1)}, "the liquidity pool says 1000, its book in the ledger 1001"),
    ({"system": moved(USDC_of_owed_of_amm_book=-1)}, "the liquidity pool says -400, its book in the ledger -401"),
    ({"system": moved(BTC_of_custody_of_amm_book=1)}, "the liquidity pool says 2, its book in the ledger 3"),
    ({"system": moved(USDC_of_amm_pool=-1, USDC_of_custody=1)}, "USDC.amm_pool: .* have -2000, the ledger -2001"),
    ({"system": moved(USDC_of_amm_fund=-1, USDC_of_custody=1)}, "USDC.amm_fund: .* have 0, the ledger -1"),
    ({"system": moved(XRP_of_amm_pool=-1, XRP_of_custody=1)}, "XRP.amm_pool holds -1, which no liquidity pool shows"),
    ({"system": moved(XRP_of_pool__units_of_amm_book=1)}, "XRP.pool-units.amm_book holds 1, which no"),
    ({"system": moved(USDC_of_pool__units_of_insurance_fund=1)}, "insurance_fund holds 1, which no"),
    ({"system": moved(ROWAN_of_custody=1)}, "ROWAN is out of balance: users and system accounts sum to 1"),
]  # fmt: skip


@pytest.mark.parametrize("changes, says", REFUSED, ids=[f"{n} {says}" for n, (_changes, says) in enumerate(REFUSED)])
def test_the_builder_refuses_a_pool_that_does_not_balance(changes: dict[str, Any], says: str) -> None:
    """[R-6, X-14]"""
    with pytest.raises(BuildRefused, match=says):
        built(**changes)


POOL_LIES: list[tuple[str, Any, str]] = [
    ("units", "999", "USDC.amm_units: leaves sum to 1000, the liquidity pool says 999"),
    ("nativeCustody", "281", "USDC.amm_native_custody: leaves sum to 280, the liquidity pool says 281"),
    ("externalCustody", "1", "USDC.amm_external_custody: leaves sum to 0, the liquidity pool says 1"),
    ("nativeOwed", "1", "USDC.amm_native_owed: leaves sum to 0, the liquidity pool says 1"),
    ("externalOwed", "399", "USDC.amm_external_owed: leaves sum to 400, the liquidity pool says 399"),
    ("nativeBalance", "699", "ROWAN.amm_pool: the liquidity pools have -1029, the ledger -1030"),
    ("externalBalance", "2001", "USDC.amm_pool: the liquidity pools have -2001, the ledger -2000"),
    ("nativeFund", "0", "ROWAN.amm_fund: the liquidity pools have 0, the ledger -7"),
    ("externalFund", "-1", "externalFund of USDC is not an amount"),
    ("native", "XRP", "liquidity pools have one native asset"),
    ("native", "BTC", "liquidity pools have one native asset"),
    ("pool", "XRP", "XRP has a liquidity pool, but the leaves do not show its amm_units"),
    ("pool", "BTC", "BTC.amm_units: leaves sum to 40, the liquidity pool says 1000"),
    ("extra", "1", "liquidity pool must have exactly the fields"),
]


@pytest.mark.parametrize("field, value, says", POOL_LIES, ids=[f"{field} {value}" for field, value, _ in POOL_LIES])
def test_the_verifier_refuses_a_header_that_lies_about_a_pool(field: str, value: Any, says: str) -> None:
    """The exchange signs whatever it likes: totals and the ledger's accounts must fit.   [R-6, X-14]"""
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 41)
    header = json.loads(proof["header"])
    header["liquidityPools"][1][field] = value

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.verify(signed(proof, header))


def test_the_verifier_refuses_a_version_that_says_otherwise() -> None:
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 41)
    header = json.loads(proof["header"])
    pools = header["liquidityPools"]

    for changes, says in (
        ({"version": 2}, "header must have exactly the fields"),
        ({"version": 4}, "header must have exactly the fields"),
        ({"liquidityPools": []}, "of version 3 is of an exchange that has liquidity pools"),
        ({"liquidityPools": [pools[1], pools[0]]}, "name one twice or out of order"),
        ({"liquidityPools": [pools[0]]}, "amm_pool: the liquidity pools have -50, the ledger -1030"),
    ):
        with pytest.raises(verifier.NotVerified, match=says):
            verifier.verify(signed(proof, {**header, **changes}))


SYSTEM_LIES = [
    ("USDC.pool-units.amm_book", 1, "USDC.pool-units: the liquidity pool says 1000, its book in the ledger 1001"),
    ("USDC.owed.amm_book", 1, "USDC.owed: the liquidity pool says 400, its book in the ledger -399"),
    ("USDC.native-owed.amm_book", -1, "USDC.native-owed: the liquidity pool says 0, its book in the ledger -1"),
    ("USDC.pool-units.insurance_fund", 1, "USDC.pool-units.insurance_fund is not zero, but no liquidity pool shows it"),
    ("XRP.amm_fund", -1, "XRP.amm_fund is not zero, but no liquidity pool shows it"),
    ("XRP.custody.amm_book", 1, "XRP.custody.amm_book is not zero, but no liquidity pool shows it"),
    ("ROWAN.custody", -1, "ROWAN is out of balance"),
]


@pytest.mark.parametrize("name, by, says", SYSTEM_LIES, ids=[says for _name, _by, says in SYSTEM_LIES])
def test_the_verifier_refuses_accounts_of_the_exchange_that_do_not_balance(name: str, by: int, says: str) -> None:
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 41)
    header = json.loads(proof["header"])
    header["system"][name] = str(int(header["system"].get(name, "0")) + by)

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.verify(signed(proof, header))


def test_reserves_that_leave_a_pools_coins_out_are_refused() -> None:
    """[R-12]"""
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 41)
    statement = json.loads(proof["reserves"])
    entry = next(each for each in statement["assets"] if each["asset"] == "ROWAN")
    entry |= {"liabilities": "0", "ratio": None, "ratioWithLoans": None}

    with pytest.raises(verifier.NotVerified, match="ROWAN: liabilities of 1030 and reserves of 1037"):
        verifier.verify(signed(proof, json.loads(proof["header"]), reserves=canonical_json(statement)))


LEAF_LIES: list[tuple[int, dict[str, int], dict[str, Any] | None, str]] = [
    (31, {"usdc_amm_native_custody": -1}, None, "have 250 of USDC.amm_native_custody together, your leaf says 249"),
    (31, {"usdc_amm_external_owed": 1}, None, "have 350 of USDC.amm_external_owed together, your leaf says 351"),
    (12, {"btc_amm_native_owed": 1}, None, "have 9 of BTC.amm_native_owed together, your leaf says 10"),
    (21, {}, {}, "have 0 of USDC.amm_native_custody together, your leaf says 30"),
    (21, {}, {"5": long("USDC", "ROWAN", 50, 30)}, "have 0 of USDC.amm_native_custody together, your leaf says 30"),
    (21, {}, {"5": long("XRP", "ROWAN", 50, 30)}, "position 5 is in a liquidity pool that is not there"),
    (21, {}, {"5": long("USDC", "BTC", 50, 30)}, "position 5 is in a liquidity pool that is not there"),
    (21, {}, {"5": long("USDC", "USDC", 50, -30)}, "custody of position 5 is not an amount"),
    (21, {}, {"5": "nothing"}, "long is missing"),
]


@pytest.mark.parametrize("who, columns, longs, says", LEAF_LIES, ids=[f"{n}" for n in range(len(LEAF_LIES))])
def test_the_holder_finds_out_that_a_leaf_is_wrong(
    who: int, columns: dict[str, int], longs: dict[str, Any] | None, says: str
) -> None:
    """Sums may fit and one's own leaf not: custody and debts are those of the positions that the detail lists."""
    epoch = built()
    header = json.loads(epoch.header.text())
    totals = dict(zip(header["columns"], map(int, header["totals"]), strict=True))
    pools = verifier.check_liquidity(header, totals)
    account = next(each for each in with_leaf(who, **columns) if each.subaccount_id == who)
    detail = json.loads(account.detail) | ({} if longs is None else {"longs": longs})

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.check_own_longs({"amounts": [*account.amounts, 1, 0], "detailLines": detail}, header["columns"], pools)


def test_the_sample_has_the_columns_that_it_says() -> None:
    assert amm_image().columns[: len(COLUMNS)] == COLUMNS and len(AMM_COLUMNS) == 10
