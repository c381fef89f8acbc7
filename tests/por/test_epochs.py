"""Epochs: what is built verifies, twice gives the same bytes, and the builder refuses what does not add up."""

from __future__ import annotations

import json

import msgspec
import pytest

from por import verifier
from por.canonical import LEAF_LIMIT, BuildRefused
from por.epochs import build_epoch, differences, rebuild
from por.header import hours_to_miss, missed_row, row_from_text
from por.image import HOUR_US, Image, Price, ReserveLine, TrialLine
from por.log import Log
from tests.por.samples import (
    HOUR,
    KEY,
    MASTER,
    PUBLIC,
    ROWS,
    accounts_of,
    changed,
    image_of,
    proof_of,
    published,
    republished,
    sample_epoch,
    sample_image,
)


def test_every_account_of_every_epoch_gets_a_proof_that_verifies() -> None:
    """[R-22]"""
    log, epochs = published()

    for epoch in epochs:
        for row in ROWS:
            report, _ = verifier.verify(proof_of(log, epoch, row[0]), user=row[1], subaccount=row[0])
            assert report[0].startswith(f"VERIFIED: epoch {epoch.header.epoch}")


def test_the_same_image_gives_the_same_header_bit_for_bit() -> None:
    """What an auditor rebuilds from replay equals what was published.   [R-23]"""
    log, epochs = published()
    published_header = log.rows[2]

    rebuilt = rebuild(sample_image(hour=HOUR + 2, before=len(ROWS)), log.rows[1], MASTER)

    assert rebuilt.text() == published_header.text()
    assert rebuilt.hash() == epochs[2].header.hash()
    assert differences(epochs[2].header, rebuilt) == []


def test_the_order_in_which_accounts_arrive_does_not_matter() -> None:
    """Nothing depends on how the image was listed.   [R-1]"""
    forwards, backwards = accounts_of(ROWS), accounts_of(ROWS[::-1])

    assert build_epoch(image_of(forwards), None, MASTER).header == build_epoch(image_of(backwards), None, MASTER).header


def test_a_rebuild_that_differs_names_the_field() -> None:
    """[R-23]"""
    honest = sample_epoch().header
    other = sample_epoch(code_version="0.1.0+other").header

    found = differences(honest, other)

    assert [line.split(":")[0] for line in found] == ["codeHash"]


def test_leaves_are_permuted_anew_in_each_epoch() -> None:
    """[R-3]"""
    accounts = accounts_of([(number, number, 1, 0, 0, 0, 0, 0, 0) for number in range(1, 65)])
    first = build_epoch(image_of(accounts), None, MASTER)
    second = build_epoch(image_of(accounts, hour=HOUR + 1, before=64), first.header, MASTER)

    assert sorted(first.leaves.subaccount_ids) == sorted(second.leaves.subaccount_ids)
    assert first.leaves.subaccount_ids != second.leaves.subaccount_ids
    assert first.leaves.salts.tobytes() != second.leaves.salts.tobytes()


def test_an_exchange_without_accounts_has_an_epoch() -> None:
    epoch = build_epoch(image_of([]), None, MASTER)

    assert epoch.header.totals == [0] * (len(epoch.header.columns))


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 513])
def test_every_number_of_leaves_verifies_with_groups_of_256(count: int) -> None:
    """The first sum a proof shows is that of a whole group.   [R-4]"""
    accounts = accounts_of([(number, number, number, 10, 0, 0, 0, 0, 0) for number in range(1, count + 1)])
    epoch = build_epoch(image_of(accounts, group_bits=8), None, MASTER)
    log = Log([epoch.header])

    for subaccount_id in {1, count // 2 + 1, count}:
        proof = proof_of(log, epoch, subaccount_id)
        assert len(proof["group"]["path"]) == 8
        verifier.verify(proof, user=subaccount_id)


def test_amounts_beyond_64_bits_are_exact() -> None:
    """No wrap and no rounding between numpy and the hash.   [A-3]"""
    huge = 2**86 + 12_345_678_901_234_567
    accounts = accounts_of([(1, 1, huge, 2**63, 2**64 - 1, 0, 0, 0, 0), (2, 2, huge, 2**64, 1, 0, 0, 0, 0)])
    epoch = build_epoch(image_of(accounts), None, MASTER)

    assert epoch.header.total("BTC.available") == 2 * huge
    assert epoch.header.total("USDC.available") == 2**63 + 2**64
    report, _ = verifier.verify(proof_of(Log([epoch.header]), epoch, 1))
    assert any(str(huge) in line for line in report)


@pytest.mark.parametrize(
    "amount, says",
    [
        (-1, "negative: -1"),
        (LEAF_LIMIT, "overflows"),
        (2**200, "overflows"),
        (1.5, "not an integer"),
    ],
)
def test_a_wrong_amount_is_refused_and_its_account_named(amount: object, says: str) -> None:
    """The builder fails closed.   [R-3]"""
    image = changed(sample_image(), 2, amounts=[0, 70_000, 0, amount, 100, 70_500, 0])

    with pytest.raises(BuildRefused) as refused:
        build_epoch(image, None, MASTER)

    assert "subaccount 21" in str(refused.value)
    assert "USDC.withdrawing" in str(refused.value)
    assert says in str(refused.value)


def test_a_negative_amount_is_refused_among_large_ones_too() -> None:
    image = changed(sample_image(), 0, amounts=[2**70, 0, 0, 0, 0, 0, 0])
    image = changed(image, 3, amounts=[2, 0, 1, 0, 0, 0, -900])

    with pytest.raises(BuildRefused, match="subaccount 31: column net_equity_minus is negative: -900"):
        build_epoch(image, None, MASTER)


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"amounts": [1]}, "subaccount 12: 1 amounts for 7 columns"),
        ({"subaccount_id": -1}, "subaccount id -1 is outside"),
        ({"user_id": 2**53}, "user id 9007199254740992 is outside"),
    ],
)
def test_an_account_of_another_shape_is_refused(fields: dict[str, object], says: str) -> None:
    """[R-2]"""
    with pytest.raises(BuildRefused, match=says):
        build_epoch(changed(sample_image(), 1, **fields), None, MASTER)


def test_a_duplicated_account_is_refused() -> None:
    """One leaf per subaccount.   [R-2]"""
    accounts = accounts_of([*ROWS, ROWS[0]])

    with pytest.raises(BuildRefused, match="subaccount 11 appears twice"):
        build_epoch(image_of(accounts), None, MASTER)


def test_a_dropped_account_is_refused_by_the_count_and_by_the_trial_balance() -> None:
    """Opened − closed and the trial balance both notice.   [R-5, R-6]"""
    whole = sample_image()
    dropped = msgspec.structs.replace(whole, accounts=whole.accounts[:-1])

    with pytest.raises(BuildRefused, match="5 opened − 0 closed is not the 4"):
        build_epoch(dropped, None, MASTER)
    with pytest.raises(BuildRefused, match="BTC subaccount/available: the leaves sum to 7, the trial balance says 8"):
        build_epoch(msgspec.structs.replace(dropped, opened=4), None, MASTER)


def test_a_detail_that_is_not_canonical_is_refused_and_its_account_named() -> None:
    """One hash, one reading.   [R-2]"""
    image = changed(sample_image(), 1, detail='{"status": "open"}')

    with pytest.raises(BuildRefused, match="the detail of subaccount 12 is not an object in canonical JSON"):
        build_epoch(image, None, MASTER)


def test_a_signed_quantity_with_two_signs_is_refused() -> None:
    """[R-2]"""
    image = changed(sample_image(), 0, amounts=[5, 1_000, 200, 0, 0, 1_700, 1])

    with pytest.raises(BuildRefused, match="subaccount 11: both net_equity_plus and net_equity_minus"):
        build_epoch(image, None, MASTER)


def test_accounts_below_zero_are_counted_and_summed() -> None:
    """[R-7]"""
    header = sample_epoch().header

    assert header.total("negative_accounts") == 1
    assert header.total("net_equity_minus") == 900
    assert header.hole_atoms == 500


def test_an_asset_out_of_balance_is_refused() -> None:
    """[R-6]"""
    with pytest.raises(BuildRefused, match="USDC is out of balance: users and system accounts sum to 1"):
        sample_epoch(system={**sample_image().system, "USDC.rounding": 1})


def test_a_ledger_column_that_no_trial_line_shows_is_refused() -> None:
    """Account type by account type, nothing left out.   [R-6]"""
    with pytest.raises(BuildRefused, match="the trial balance shows columns"):
        sample_epoch(trial_balance=sample_image().trial_balance[:2], system={"BTC.custody": 8, "USDC.custody": 71_310})


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"insurance_atoms": -1}, "the insurance fund is -1"),
        ({"reserves": [ReserveLine("BTC", "custody", "sim/hot", -1)]}, "reserve line sim/hot: -1 BTC"),
        ({"trial_balance": [TrialLine("available", "BTC", ["BTC.hidden"], 0)]}, "names column BTC.hidden"),
    ],
)
def test_a_negative_reserve_or_an_unknown_column_is_refused(fields: dict[str, object], says: str) -> None:
    """[R-6, R-12]"""
    with pytest.raises(BuildRefused, match=says):
        sample_epoch(**fields)


def test_a_claim_on_the_side_of_debts_is_refused() -> None:
    """What users are owed cannot be booked as what they owe.   [R-6]"""
    lines = sample_image().trial_balance
    turned = [msgspec.structs.replace(lines[0], atoms=-lines[0].atoms), *lines[1:]]
    system = {**sample_image().system, "BTC.custody": -8}

    with pytest.raises(BuildRefused, match="BTC subaccount/available is on the wrong side: 8"):
        sample_epoch(trial_balance=turned, system=system)

    log, epoch = republished(sample_epoch(), trial_balance=turned, system=system)
    with pytest.raises(verifier.NotVerified, match="BTC subaccount/available is on the wrong side"):
        verifier.verify(proof_of(log, epoch, 21))


def test_a_trial_line_of_another_assets_column_is_refused() -> None:
    lines = [*sample_image().trial_balance[1:], TrialLine("subaccount/available", "USDC", ["BTC.available"], -8)]

    with pytest.raises(BuildRefused, match=r"shows column BTC.available under USDC"):
        sample_epoch(trial_balance=lines)


def test_the_reserve_ratio_is_per_asset_and_rounded_down() -> None:
    """[R-12]"""
    short = [ReserveLine("BTC", "custody", "sim/hot", 7), ReserveLine("USDC", "custody", "sim/hot", 10**9)]
    epoch = sample_epoch(reserves=short)

    assets = {entry["asset"]: entry for entry in json.loads(epoch.reserves)["assets"]}
    report, _ = verifier.verify(proof_of(Log([epoch.header]), epoch, 21))

    assert assets["BTC"]["ratio"] == str(7 * 10**9 // 8)
    assert any("BTC" in line and "87.50 %" in line and "SHORTFALL" in line for line in report)
    assert not any("USDC" in line and "SHORTFALL" in line for line in report)


@pytest.mark.parametrize(
    "prices, says",
    [
        ([("BTC", 100, -61)], "the price of BTC is 61000000 µs old"),
        ([("BTC", 100, 1)], "the price of BTC is -1000000 µs old"),
        ([("BTC", 0, 0)], "the price of BTC is 0"),
        ([("BTC", 1, 0), ("BTC", 2, 0)], "each once"),
        ([("USDC", 1, 0), ("BTC", 2, 0)], "in the order"),
    ],
)
def test_a_stale_or_doubtful_price_set_is_refused(prices: list[tuple[str, int, int]], says: str) -> None:
    """[R-5]"""
    at_us = sample_image().at_us
    lines = [Price(asset, price, at_us + seconds * 1_000_000) for asset, price, seconds in prices]

    with pytest.raises(BuildRefused, match=says):
        sample_epoch(prices=lines)


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"block_height": 76, "hour": HOUR + 1}, "before block 77"),
        ({"hour": HOUR + 2}, "does not follow hour 495000"),
        ({"hour": HOUR}, "does not follow hour 495000"),
        ({"hour": HOUR + 1, "at_us": (HOUR + 2) * HOUR_US}, "cannot be shown by a block"),
        ({"hour": HOUR + 1, "at_us": (HOUR + 1) * HOUR_US - 1}, "cannot be shown by a block"),
        ({"hour": HOUR + 1, "exchange": "other"}, "the log is of exchange satchel-test"),
        ({"hour": HOUR + 1, "opened": -1, "closed": -1}, "is not the 5"),
        ({"hour": HOUR + 1, "columns": [*["x"] * 7]}, "appears twice"),
        ({"hour": HOUR + 1, "columns": [*"abcdef", "accounts"]}, "'accounts' cannot be the name of a column"),
        ({"hour": HOUR + 1, "columns": [*"abcdef", "g\n"]}, "cannot be the name of a column"),
        ({"hour": HOUR + 1, "parameters": '{ "a":1}'}, "not an object in canonical JSON"),
        ({"hour": HOUR + 1, "parameters": '{"a":1.5}'}, "1.5 is not a whole number"),
        ({"hour": HOUR + 1, "parameters": '{"a":1,"a":1}'}, "not an object in canonical JSON"),
    ],
)
def test_an_epoch_that_does_not_follow_the_last_is_refused(fields: dict[str, object], says: str) -> None:
    """[R-5, R-24]"""
    first = sample_epoch().header

    with pytest.raises(BuildRefused, match=says):
        sample_epoch(first, before=5, **fields)


def test_a_short_master_secret_is_refused() -> None:
    with pytest.raises(BuildRefused, match="31 bytes"):
        build_epoch(sample_image(), None, bytes(31))


def test_missed_hours_are_rows_of_the_log_and_an_epoch_on_demand_takes_no_hour() -> None:
    """The log has a row for every hour.   [R-24]"""
    first = sample_epoch().header
    log = Log([first])
    for hour in hours_to_miss(first, HOUR + 3):
        log.append(missed_row(log.rows[-1], hour, "the database was down"))
    later = (HOUR + 2) * HOUR_US + 9
    on_demand = sample_epoch(log.last, hour=None, before=5, at_us=later, prices=[])
    log.append(on_demand.header)
    hourly = sample_epoch(log.last, hour=HOUR + 3, before=5)
    log.append(hourly.header)

    report, _ = verifier.verify(log.export(log.checkpoint(KEY.sign, PUBLIC), PUBLIC))

    assert [row.hour for row in log.rows] == [HOUR, HOUR + 1, HOUR + 2, None, HOUR + 3]
    assert (hourly.header.missed_hours, hourly.header.last_hour) == (2, HOUR + 3)
    assert sum("the database was down" in line for line in report) == 2
    assert any("Of 4 hours since the first epoch on the hour, 2 have no epoch." in line for line in report)
    verifier.verify(proof_of(log, on_demand, 21))
    verifier.verify(proof_of(log, hourly, 21))


def test_rows_read_back_as_they_were_written() -> None:
    first = sample_epoch().header
    missed = missed_row(first, HOUR + 1, "nobody was here")

    assert row_from_text(first.text()) == first
    assert row_from_text(missed.text()) == missed
    with pytest.raises(ValueError, match="canonical"):
        row_from_text(first.text().replace('"epoch":0', '"epoch": 0'))


def test_an_unknown_subaccount_has_no_proof() -> None:
    epoch = sample_epoch()

    with pytest.raises(KeyError, match="subaccount 22 has no leaf in epoch 0"):
        proof_of(Log([epoch.header]), epoch, 22)


def test_an_image_is_plain_data() -> None:
    """The caller may hand it between processes (R-1: the builder works on an image, outside the sequencer)."""
    image = sample_image()

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(image), type=Image) == image
