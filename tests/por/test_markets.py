"""Perpetual markets in an epoch: longs are shorts, gains are losses, claims the fund's; each lie about it is refused.

[R-2, R-5, R-6, R-7, C-5, S-13, V-5]
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
from por.image import Account, Image, MarketLine, PoolLine, Price, ReserveLine
from por.log import Log
from tests.por.samples import COLUMNS, MASTER, proof_of, sample_image, signed

PERP = "BTC_USDC_PERP"
MARKET_COLUMNS = [f"{PERP}.{kind}" for kind in (
    "long", "short", "cost_plus", "cost_minus", "pnl_plus", "pnl_minus", "claim_plus", "claim_minus",
)]  # fmt: skip
SETTLED_COLUMNS = ["USDC.unsettled_plus", "USDC.unsettled_minus", "USDC.recovery"]
POOL_COLUMNS = ["USDC.lent", "USDC.borrowed", "USDC.uncollected_yield"]
LOT, MARK = 10, 300
"""A lot is 10 atoms and worth 300: the price is 30 atoms of USDC for one of BTC, both without decimals."""

POSITIONS = {11: (4, -1_190), 21: (-3, 905), 31: (-1, 286)}
"""Subaccount → lots and cost: 11 gained 10, 21 gained 5, 31 lost 14; the exchange's rounding account owes 1."""
UNSETTLED = {11: 40, 31: -42}
RECOVERY = {41: 6}
CLAIM_LEND, CLAIM_DEBT = {11: 30, 41: 7}, {21: 12}
LEND_SHARES, DEBT_SHARES = {41: 63}, {31: 8}
POOL = PoolLine(
    asset="USDC", lent=201, borrowed=50, fees=3, staked=0, yields=9, lend_shares=100, debt_shares=20, lenders=1,
    borrowers=1,
)  # fmt: skip
MARKET = MarketLine(
    market=PERP, base="BTC", quote="USDC", lot=LOT, mark=MARK, settled=290, cost=-1, claim_lend=37, claim_debt=12,
    winners=2, losers=1,
)  # fmt: skip


def split(amount: int) -> tuple[int, int]:
    return max(amount, 0), max(-amount, 0)


def leaf_of(account: Account) -> Account:
    number = account.subaccount_id
    lots, cost = POSITIONS.get(number, (0, 0))
    long, short = split(lots * LOT)
    claim, debt = CLAIM_LEND.get(number, 0) * 201 // 100, -(-CLAIM_DEBT.get(number, 0) * 50 // 20)
    lent, owed = LEND_SHARES.get(number, 0) * 201 // 100, -(-DEBT_SHARES.get(number, 0) * 50 // 20)
    detail: dict[str, Any] = {"status": "open"}
    for name, shares in (("lendShares", LEND_SHARES), ("debtShares", DEBT_SHARES)):
        if number in shares:
            detail[name] = {"USDC": str(shares[number])}
    if number in CLAIM_LEND or number in CLAIM_DEBT:
        own = {"lend": str(CLAIM_LEND.get(number, 0)), "debt": str(CLAIM_DEBT.get(number, 0))}
        detail["claims"] = {PERP: own}
    amounts = [
        *account.amounts,
        *(lent, owed, 0),
        *split(UNSETTLED.get(number, 0)),
        RECOVERY.get(number, 0),
        *(long, short),
        *split(cost),
        *split(lots * MARK + cost),
        *(claim, debt),
    ]
    return Account(number, account.user_id, amounts, canonical_json(detail))


def market_image(**changes: Any) -> Image:
    """The sample with a pool of USDC and a perpetual: three hold positions, three have claims, two are unsettled."""
    image = sample_image()
    usdc = -sum(line.atoms for line in image.trial_balance if line.asset == "USDC")
    fields: dict[str, Any] = {
        "columns": [*COLUMNS, *POOL_COLUMNS, *SETTLED_COLUMNS, *MARKET_COLUMNS],
        "accounts": [leaf_of(account) for account in image.accounts],
        "prices": [image.prices[0], Price(PERP, 30 * 10**12, image.at_us), image.prices[1]],
        "parameters": '{"BTC":{"decimals":0,"weight":"900000000"},"USDC":{"decimals":0}}',
        "pools": [POOL],
        "markets": [MARKET],
        "unsettled": {"USDC": 2},
        "pool_holes": {"USDC": 5},
        "system": {
            **image.system,
            "USDC.custody": usdc + 3 + 201 + 3 + 9 - 50,
            "USDC.pool_lent": -201,
            "USDC.pool_borrowed": 50,
            "USDC.pool_fees": -3,
            "USDC.pool_yield": -9,
            "USDC.lend.pool_shares": 100,
            "USDC.lend.liquidity_fund": -37,
            "USDC.debt.pool_shares": -20,
            "USDC.debt.liquidity_fund": 12,
            f"{PERP}.claim.liquidity_fund": 37,
            f"{PERP}.claim-debt.liquidity_fund": -12,
            f"{PERP}.cost.rounding": 1,
            "USDC.rounding_unsettled": 3,
            "USDC.insurance_unsettled": -5,
        },
        "reserves": [image.reserves[0], ReserveLine("USDC", "custody", "sim/hot", usdc), image.reserves[2]],
    }
    return msgspec.structs.replace(image, **{**fields, **changes})


def built(**changes: Any) -> Epoch:
    return build_epoch(market_image(**changes), None, MASTER)


def with_leaf(subaccount_id: int, **columns: int) -> list[Account]:
    """The accounts with some amounts of one changed, by the end of the column's name."""
    image = market_image()
    accounts = []
    for account in image.accounts:
        amounts = list(account.amounts)
        for kind, by in columns.items():
            at = next(i for i, name in enumerate(image.columns) if name.endswith(f".{kind}"))
            amounts[at] += by if account.subaccount_id == subaccount_id else 0
        accounts.append(msgspec.structs.replace(account, amounts=amounts))
    return accounts


def moved(**atoms: int) -> dict[str, int]:
    """The system accounts with some changed; `cost_rounding` is that of the market."""
    system = dict(market_image().system)
    for name, change in atoms.items():
        key = {
            "cost_rounding": f"{PERP}.cost.rounding",
            "fund_lends": "USDC.lend.liquidity_fund",
            "fund_holds": f"{PERP}.claim.liquidity_fund",
        }.get(name, f"USDC.{name}")
        system[key] = system.get(key, 0) + change
    return system


def market(**changes: Any) -> list[MarketLine]:
    return [msgspec.structs.replace(MARKET, **changes)]


def test_everybody_verifies_positions_claims_and_what_waits() -> None:
    """[R-2, R-6]"""
    epoch = built()
    log = Log([epoch.header])

    for subaccount_id in (11, 12, 21, 31, 41):
        report, _ = verifier.verify(proof_of(log, epoch, subaccount_id))
        assert any(f"{PERP:<16} 40 BTC each side, 10 BTC = 300 USDC" in line for line in report), report
        assert any("Lenders of USDC still lack 5" in line for line in report)
    assert epoch.header.total(f"{PERP}.long") == epoch.header.total(f"{PERP}.short") == 40
    assert row_from_text(epoch.header.text()) == epoch.header


def test_a_header_without_perpetuals_is_what_it_always_was() -> None:
    """Epochs of version 1 still verify, and nothing of theirs changes."""
    old, new = build_epoch(sample_image(), None, MASTER).header, built().header

    assert json.loads(old.text())["version"] == 1 and "markets" not in json.loads(old.text())
    assert json.loads(new.text())["version"] == 2


def test_a_log_may_go_on_from_version_1_to_2() -> None:
    """The first perpetual market is listed between two epochs."""
    log = Log()
    first = build_epoch(sample_image(), None, MASTER)
    log.append(first.header)
    later = market_image(hour=None, at_us=first.header.at_us + 1, opened=0)
    prices = [msgspec.structs.replace(price, at_us=later.at_us) for price in later.prices]
    second = build_epoch(msgspec.structs.replace(later, prices=prices), log.last, MASTER)
    log.append(second.header)

    for epoch in (first, second):
        assert verifier.verify(proof_of(log, epoch, 21))[0][0].startswith("VERIFIED")


def test_unsettled_gains_are_owed_and_unsettled_losses_are_no_reserve() -> None:
    """[R-12] Gross: 40 more are owed, 42 more lent on."""
    usdc = next(entry for entry in json.loads(built().reserves)["assets"] if entry["asset"] == "USDC")
    held = -sum(line.atoms for line in market_image().trial_balance if line.asset == "USDC")
    assert usdc["liabilities"] == str(held + 201 + 9 + 40) and usdc["loans"] == str(50 + 42)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"accounts": with_leaf(11, long=10, pnl_plus=300)}, "50 atoms are long, 40 are short"),
    ({"accounts": with_leaf(11, cost_minus=1, pnl_plus=-1)}, "the costs of all positions are 0, the ledger says 1"),
    ({"accounts": with_leaf(11, pnl_plus=1)}, "Σ cost is 1 and Σ PnL 2, the exchange's own accounts hold 1"),
    ({"markets": market(cost=0)}, "the costs of all positions are 1, the ledger says 0"),
    ({"system": moved(cost_rounding=1)}, "Σ cost is 1 and Σ PnL 1, the exchange's own accounts hold 2"),
    ({"markets": market(lot=7)}, "40 atoms long are no whole lots of 7"),
    ({"markets": market(mark=0)}, "a lot of 10 at 0, last settled at 290"),
    ({"markets": market(market="ETH_USDC_PERP")}, "names column ETH_USDC_PERP.claim_plus"),
    ({"markets": [MARKET, MARKET]}, "in the order of their symbols, each once|37 shares, its users' claims are -74"),
    ({"prices": sample_image().prices}, "the mark is 300, and the price set does not say so"),
    ({"accounts": with_leaf(11, claim_plus=2)}, "3 lenders claim 202, the pool owes them 201"),
    ({"accounts": with_leaf(11, claim_plus=-3)}, "3 lenders claim 197, the pool owes them 201"),
    ({"accounts": with_leaf(21, claim_minus=-1)}, "2 borrowers owe 49, the pool is owed 50"),
    ({"accounts": with_leaf(21, claim_minus=2)}, "2 borrowers owe 52, the pool is owed 50"),
    ({"markets": market(claim_lend=36)}, "the liquidity fund has -37 shares, its users' claims are -36"),
    ({"markets": market(claim_debt=13)}, "the liquidity fund has 12 shares, its users' claims are 13"),
    ({"system": moved(fund_lends=-1)}, "the liquidity fund has -38 shares, its users' claims are -37"),
    ({"system": moved(fund_holds=1)}, f"{PERP}.claim is out of balance"),
    ({"accounts": with_leaf(11, unsettled_plus=1)}, "users wait for 41 and owe 42, the ledger says -2"),
    ({"unsettled": {"USDC": 1}}, "users wait for 40 and owe 42, the ledger says -1"),
    ({"system": moved(rounding_unsettled=1)}, "unsettled equity sums to 1: users 2, the exchange -1"),
    ({"unsettled": {}}, "nobody's unsettled USDC is shown|the leaves have"),
    ({"accounts": with_leaf(41, recovery=4)}, "10 of yields and recoveries are uncollected, the pool has 9"),
    ({"pool_holes": {"XRP": 1}}, "the pool of XRP has a hole of 1"),
    ({"pool_holes": {"USDC": -1}}, "the pool of USDC has a hole of -1"),
    ({"system": moved(custody=1)}, "USDC is out of balance: users and system accounts sum to 1"),
]


@pytest.mark.parametrize("changes, says", REFUSED, ids=[says for _changes, says in REFUSED])
def test_the_builder_refuses_a_market_that_does_not_balance(changes: dict[str, Any], says: str) -> None:
    """[R-6, R-7]"""
    with pytest.raises(BuildRefused, match=says):
        built(**changes)


def test_a_position_that_is_both_signs_is_refused() -> None:
    """[R-2]"""
    with pytest.raises(BuildRefused, match=f"both {PERP}.cost_plus and {PERP}.cost_minus"):
        built(accounts=with_leaf(11, cost_plus=1))


MARKET_LIES: list[tuple[str, Any, str]] = [
    ("cost", "0", "costs sum to 1, the ledger says 0"),
    ("lot", "7", "40 atoms long, in lots of 7 at a mark of 300"),
    ("lot", "20", "a mark of 300 for a lot of 20 is not the price"),
    ("mark", "301", "a mark of 301 for a lot of 10 is not the price"),
    ("mark", "0", "40 atoms long, in lots of 10 at a mark of 0"),
    ("base", "XRP", "the parameters do not say how many decimals"),
    ("claimLend", "38", "the liquidity fund has -37, its users claim -38"),
    ("claimDebt", "11", "the liquidity fund has 12, its users claim 11"),
    ("winners", 0, "1 lenders claim 200, the pool owes them 201"),
    ("losers", -1, "losers is not a whole number"),
    ("market", "XRP_USDC_PERP", "is a market, but the leaves do not show its positions"),
    ("settled", "-1", "settled of BTC_USDC_PERP is not an amount"),
    ("extra", "1", "market must have exactly the fields"),
]


@pytest.mark.parametrize("field, value, says", MARKET_LIES, ids=[f"{field} {value}" for field, value, _ in MARKET_LIES])
def test_the_verifier_refuses_a_header_that_lies_about_a_market(field: str, value: Any, says: str) -> None:
    """The exchange signs whatever it likes: totals, price set and the customer's own leaf must fit.   [R-6]"""
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 12)
    header = json.loads(proof["header"])
    header["markets"][0][field] = value

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.verify(signed(proof, header))


HEADER_LIES: list[tuple[dict[str, Any], str]] = [
    ({"markets": []}, "USDC.lend: the liquidity fund has -37, its users claim 0"),
    ({"unsettled": {"USDC": "3"}}, "users wait for 40 and owe 42, the ledger says 3"),
    ({"unsettled": {}}, "unsettled is not zero, but nobody's unsettled equity is stated"),
    ({"unsettled": []}, "unsettled is missing"),
    ({"unsettled": {"BTC": "0", "USDC": "2"}}, "unsettled BTC is stated, but the leaves do not show it"),
    ({"poolHoles": {"XRP": "1"}}, "XRP has a hole of 1, but no pool"),
    ({"poolHoles": {"USDC": "-1"}}, "hole of USDC is not an amount"),
    ({"version": 1}, "header must have exactly the fields"),
]


@pytest.mark.parametrize("fields, says", HEADER_LIES, ids=[says for _fields, says in HEADER_LIES])
def test_the_verifier_refuses_a_header_that_hides_what_settles(fields: dict[str, Any], says: str) -> None:
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 12)

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.verify(signed(proof, {**json.loads(proof["header"]), **fields}))


SYSTEM_LIES = [
    (f"{PERP}.cost.rounding", 1, "costs sum to 1 and PnL to 1, the exchange's own accounts hold 2"),
    ("USDC.lend.liquidity_fund", -1, "the liquidity fund has -38, its users claim -37"),
    (f"{PERP}.claim.liquidity_fund", 1, f"{PERP}.claim is out of balance"),
    (f"{PERP}.claim-debt.liquidity_fund", 1, f"{PERP}.claim-debt is out of balance"),
    ("USDC.rounding_unsettled", 1, "unsettled equity sums to 1, not to zero"),
    ("USDC.pool_yield", 4, "states -9 for pool_yield, the ledger -5"),
    ("USDC.lend.insurance_fund", -2, "4 lenders claim 204, the pool owes them 201"),
]


@pytest.mark.parametrize("name, by, says", SYSTEM_LIES, ids=[says for _name, _by, says in SYSTEM_LIES])
def test_the_verifier_refuses_accounts_of_the_exchange_that_do_not_balance(name: str, by: int, says: str) -> None:
    epoch = built()
    proof = proof_of(Log([epoch.header]), epoch, 12)
    header = json.loads(proof["header"])
    header["system"][name] = str(int(header["system"].get(name, "0")) + by)

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.verify(signed(proof, header))


LEAF_LIES: list[tuple[int, dict[str, int], str, str]] = [
    (11, {"pnl_plus": 5, "cost_plus": 0}, "{}", "4 lots at 300 and a cost of -1190 are 10, your leaf says 15"),
    (11, {"long": 5, "short": 0}, "{}", "is 45, no whole lots of 10"),
    (11, {"short": 10, "pnl_plus": 0}, "{}", "is both long and short"),
    (11, {"claim_plus": 1}, "{}", "your 30 lend shares are worth 60, your leaf says 61"),
    (21, {"claim_minus": -1}, "{}", "your 12 debt shares are worth 30, your leaf says 29"),
    (21, {}, '{"claims":{"XRP":{"debt":"12","lend":"0"}},"status":"open"}', "claims are of a market that is not there"),
    (21, {}, canonical_json({"claims": {PERP: {"gift": "12"}}}), "neither lent nor owed"),
    (21, {}, canonical_json({"claims": {PERP: {"debt": "13", "lend": "0"}}}), "you have 13 debt shares"),
    (21, {}, '{"status":"open"}', "your 0 debt shares are worth 0, your leaf says 30"),
]


@pytest.mark.parametrize("who, columns, detail, says", LEAF_LIES, ids=[says for *_rest, says in LEAF_LIES])
def test_the_holder_finds_out_that_a_leaf_is_wrong(who: int, columns: dict[str, int], detail: str, says: str) -> None:
    """Sums may fit and one's own leaf not: PnL is quantity × mark + cost, claims follow from shares.   [C-5, V-2]"""
    epoch = built()
    header = json.loads(epoch.header.text())
    markets = verifier.check_markets(header, totals_of(header), json.loads(epoch.prices), {"BTC": 0, "USDC": 0})
    pools = verifier.check_pools(header, totals_of(header), markets)
    account = next(each for each in with_leaf(who, **columns) if each.subaccount_id == who)
    own = account.detail if detail == "{}" else detail
    leaf = {"amounts": [*account.amounts, 1, 0], "detailLines": json.loads(own)}

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.check_own_positions(leaf, epoch.header.columns, pools, markets)


@pytest.mark.parametrize(
    "column, by, says",
    [
        ("long", 10, "50 atoms are long and 40 short"),
        ("short", -10, "40 atoms are long and 30 short"),
        ("cost_plus", 1, "costs sum to 2, the ledger says 1"),
        ("pnl_minus", 1, "costs sum to 1 and PnL to 0, the exchange's own accounts hold 1"),
    ],
)
def test_the_verifier_adds_up_totals_that_do_lead_to_the_root(column: str, by: int, says: str) -> None:
    """An exchange that builds its tree by another program can put anything into it.   [R-6]"""
    epoch = built()
    header = json.loads(epoch.header.text())
    totals = totals_of(header)
    totals[f"{PERP}.{column}"] += by

    with pytest.raises(verifier.NotVerified, match=says):
        verifier.check_markets(header, totals, json.loads(epoch.prices), {"BTC": 0, "USDC": 0})


def totals_of(header: dict[str, Any]) -> dict[str, int]:
    return dict(zip(header["columns"], map(int, header["totals"]), strict=True))


def test_what_the_insurance_fund_lends_counts_as_lent() -> None:
    """[L-8] Ten of the lender's shares are the fund's: the pool's claims are complete only with them."""
    accounts = with_leaf(41, lent=-(63 * 201 // 100) + 53 * 201 // 100)
    at = next(i for i, account in enumerate(accounts) if account.subaccount_id == 41)
    detail = json.loads(accounts[at].detail) | {"lendShares": {"USDC": "53"}}
    accounts[at] = msgspec.structs.replace(accounts[at], detail=canonical_json(detail))
    system = {**market_image().system, "USDC.lend.insurance_fund": -10}

    epoch = built(accounts=accounts, system=system)
    verifier.verify(proof_of(Log([epoch.header]), epoch, 41))

    with pytest.raises(BuildRefused, match="3 lenders claim"):
        built(accounts=accounts)
