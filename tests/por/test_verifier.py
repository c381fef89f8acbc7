"""What the standalone verifier must refuse: each way to cheat a customer is a test.   [R-22]"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from por import canonical, verifier
from por.canonical import LEAF_LIMIT, canonical_json, text_hash
from por.epochs import Epoch, build_epoch, prove
from por.header import missed_row
from por.log import Log, cosign, signed_checkpoint, verifier_key
from por.tree import add_vectors, group_node, position_bytes, vector_bytes
from tests.por.samples import (
    HOUR,
    KEY,
    MASTER,
    PUBLIC,
    ROWS,
    accounts_of,
    image_of,
    proof_of,
    published,
    republished,
    sample_epoch,
    sample_image,
    sample_proof,
    signed,
)

VERIFIER = Path(verifier.__file__)
Proof = dict[str, Any]


def refusal(proof: Proof, **options: Any) -> str:
    """Why the verifier says no; the test fails if it says yes."""
    with pytest.raises(verifier.NotVerified) as refused:
        verifier.verify(proof, **options)
    return str(refused.value)


def test_an_honest_proof_verifies() -> None:
    report, checkpoint = verifier.verify(sample_proof())

    assert "VERIFIED: epoch 1 of satchel-test" in report[0]
    assert checkpoint == sample_proof()["log"]["checkpoint"]


# ---------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize("amount", ["-1", "+1", "01", "1_0", " 1", "1.0", "", "0x1", "١", str(2**128), 1, None])
@pytest.mark.parametrize("where", ["leaf", "group", "sums"])
def test_a_column_that_is_not_an_unsigned_128_bit_number_is_refused(amount: object, where: str) -> None:
    proof = sample_proof()
    vectors = {
        "leaf": proof["leaf"]["amounts"],
        "group": proof["group"]["totals"],
        "sums": proof["sums"][0]["totals"],
    }
    vectors[where][1] = amount

    assert "is not an amount" in refusal(proof) or "overflows" in refusal(proof)


def test_an_amount_over_the_cap_of_a_leaf_is_refused() -> None:
    proof = sample_proof()
    proof["leaf"]["amounts"][1] = str(LEAF_LIMIT)

    assert "beyond the limit of a leaf" in refusal(proof)


def test_sums_that_overflow_are_refused_by_builder_and_verifier() -> None:
    """Overflow checks at each addition.   [R-3]"""
    with pytest.raises(canonical.BuildRefused, match="column 0 overflows"):
        add_vectors((2**127,), (2**127,))
    proof = sample_proof()
    proof["group"]["totals"][1] = str(2**127)
    proof["sums"][0]["totals"][1] = str(2**127)

    assert "the sum of USDC.available overflows" in refusal(proof)


def test_a_group_that_holds_less_than_its_member_is_refused() -> None:
    """The little that a user can check inside the group.   [R-4]"""
    proof = sample_proof()
    proof["group"]["totals"][1] = "69999"

    assert "your USDC.available is 70000, but your whole group" in refusal(proof)


# ---------------------------------------------------------------------------------------------------- the tree


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_parent_with_an_altered_child_vector_is_refused(step: int, change: int) -> None:
    """[R-3]"""
    proof = sample_proof(31)
    totals = proof["sums"][step]["totals"]
    column = next(at for at, total in enumerate(totals) if int(total) > 0) if change < 0 else 0
    totals[column] = str(int(totals[column]) + change)

    assert "does not lead to the root" in refusal(proof)


def test_a_parent_that_commits_only_to_a_sum_is_refused() -> None:
    """The flaw of the first sum trees: a node that states the larger child, and each child is shown a zero sibling."""
    accounts = accounts_of([(1, 1, 0, 70, 0, 0, 0, 0, 0), (2, 2, 0, 50, 0, 0, 0, 0, 0)])
    honest = build_epoch(image_of(accounts, group_bits=0), None, MASTER)
    left, right = honest.tree.levels[0]
    shrunk = [*honest.tree.root.totals]
    shrunk[1] = 70
    place = position_bytes(canonical.TAG_SUM, 0, 1, 0)
    sum_only = canonical.hashlib.sha256(place + left.hash + right.hash + vector_bytes(tuple(shrunk))).digest()
    lines = [msgspec.structs.replace(line, atoms=-70 if line.atoms else 0) for line in honest.header.trial_balance]
    log, epoch = republished(
        honest, liabilities_root=sum_only, totals=shrunk, trial_balance=lines, system={"USDC.custody": 70}
    )
    proof = proof_of(log, epoch, 1)
    proof["sums"][0]["totals"][1] = "0"

    assert "does not lead to the root" in refusal(proof)


def test_a_leaf_cannot_be_presented_as_a_node_nor_a_node_as_a_leaf() -> None:
    """Domain tags, levels and path lengths.   [R-3]"""
    shorter = sample_proof()
    shorter["group"]["path"].pop(0)
    shorter["leaf"]["index"] >>= 1
    assert "the path inside the group must have 1 steps" in refusal(shorter)

    longer = sample_proof()
    longer["sums"].append(longer["sums"][-1])
    assert "the path above the group must have 2 steps for 3 groups" in refusal(longer)

    # The same bytes hash to different things as a leaf, inside a group, as a group and as a sum.
    body = bytes(32) + vector_bytes((1, 2))
    kinds = (canonical.TAG_LEAF, canonical.TAG_INNER, canonical.TAG_GROUP, canonical.TAG_SUM, canonical.TAG_PAD_LEAF)
    assert len({canonical.hashlib.sha256(position_bytes(kind, 1, 0, 0) + body).digest() for kind in kinds}) == 5
    assert group_node(1, 8, 0, bytes(32), (1, 2)) != group_node(1, 7, 0, bytes(32), (1, 2))


def test_a_pad_cannot_be_presented_as_an_account() -> None:
    """Pad leaves are behind the accounts and have a tag of their own.   [R-3]"""
    proof = sample_proof()
    proof["leaf"]["index"] = 5

    assert "leaf index 5 is beyond the 5 accounts" in refusal(proof)


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: proof["leaf"].update(index=proof["leaf"]["index"] ^ 1),
        lambda proof: proof["leaf"].update(salt="00" * 32),
        lambda proof: proof["leaf"].update(userId=2),
        lambda proof: proof["leaf"].update(subaccountId=22),
        lambda proof: proof["leaf"].update(detail='{"status":"closed"}'),
        lambda proof: proof["group"]["path"].__setitem__(0, "00" * 32),
        lambda proof: proof["sums"][1].update(hash="00" * 32),
        lambda proof: proof["sums"].reverse(),
        lambda proof: proof["leaf"]["amounts"].__setitem__(6, "899"),
    ],
)
def test_a_wrong_index_salt_id_detail_or_step_is_refused(change: Callable[[Proof], None]) -> None:
    proof = sample_proof(31)
    change(proof)

    assert "does not lead to the root" in refusal(proof)


def test_a_leaf_of_another_epoch_is_refused() -> None:
    """The epoch is in the preimage of every leaf and node, and the salt is new.   [R-3]"""
    log, epochs = published()
    proof = proof_of(log, epochs[1], 21)
    other = proof_of(log, epochs[2], 21)
    proof["leaf"], proof["group"], proof["sums"] = other["leaf"], other["group"], other["sums"]

    assert "does not lead to the root" in refusal(proof)


def test_two_users_given_one_leaf_find_out() -> None:
    """The user's own ids are in the leaf.   [R-2]"""
    accounts = accounts_of([(1, 1, 0, 50, 0, 0, 0, 0, 0), (2, 2, 0, 50, 0, 0, 0, 0, 0)])
    honest = build_epoch(image_of(accounts), None, MASTER)
    log = Log([honest.header])
    proof_of_first = proof_of(log, honest, 1)
    relabelled = copy.deepcopy(proof_of_first)
    relabelled["leaf"].update(userId=2, subaccountId=2)

    assert "this proof is of user 1, not of user 2" in refusal(proof_of_first, user=2)
    assert "this proof is of subaccount 1, not of 2" in refusal(proof_of_first, subaccount=2)
    assert "does not lead to the root" in refusal(relabelled, user=2)


# ----------------------------------------------------------------------------- a dishonest exchange signs what it likes


@pytest.mark.parametrize(
    "fields, says",
    [
        (
            {"totals": [8, 71_008, 201, 500, 100, 72_309, 900, 5, 1]},
            "USDC.available adds up to 71009, the header states 71008",
        ),
        ({"liabilities_root": bytes(32)}, "does not lead to the root"),
        ({"accounts": 4, "opened": 4}, "the header states 4 accounts, the leaves count 5"),
        ({"system": {"BTC.custody": 8, "USDC.custody": 71_809}}, "USDC is out of balance: users and system accounts"),
        ({"system": {"BTC.custody": 8, "USDC.custody": 71_810, "XYZ.custody": 1}}, "XYZ is out of balance"),
        ({"trial_balance": []}, "does not show every column"),
        ({"columns": [f"c{at}" for at in range(9)]}, "count of accounts is missing"),
        ({"group_bits": 2}, "your whole group is said to hold only 1000"),
        ({"group_bits": 17}, "not allowed"),
        ({"prices_hash": bytes(32)}, "prices in the proof is not what the header commits to"),
        ({"parameters_hash": bytes(32)}, "parameters in the proof is not what"),
        ({"code_hash": bytes(32)}, "codeVersion in the proof is not what"),
        ({"reserves_hash": bytes(32)}, "reserves in the proof is not what"),
        ({"price_max_age_us": 1_000_000}, "the price of BTC is 2.0 s old"),
        ({"at_us": HOUR * 3_600_000_000 + 3_500_000_000}, "the price of BTC is 3500.5 s old"),
        ({"block_height": 78}, "the reserves are of blockHeight 77"),
        ({"block_hash": bytes(32)}, "the reserves are of blockHash 0707"),
        ({"exchange": "other"}, "the reserves are of exchange satchel-test"),
        ({"hour": HOUR + 1}, "says that the last hour is 495000"),
        ({"last_hour": HOUR - 1, "hour": None}, "make no sense"),
        ({"missed_hours": 2}, "2 missed hours of 1 hours make no sense"),
        ({"hour": HOUR + 1, "last_hour": HOUR + 1}, "not a snapshot within that hour"),
        ({"first_hour": None}, "must both be there"),
    ],
)
def test_a_signed_header_that_does_not_add_up_is_refused(fields: dict[str, Any], says: str) -> None:
    """The signature proves who said it, not that it is right.   [R-5, R-6, R-7]"""
    log, epoch = republished(sample_epoch(), **fields)

    assert says in refusal(proof_of(log, epoch, 21))


BTC_LINE = {"accountType": "subaccount/available", "asset": "BTC", "columns": ["BTC.available"], "atoms": "-8"}


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"version": 4}, "header version 4 is not known"),
        ({"version": 2}, "header must have exactly the fields"),
        ({"version": 3, "markets": [], "unsettled": {}, "poolHoles": {}}, "header must have exactly the fields"),
        ({"version": 2, "markets": [], "unsettled": {}, "poolHoles": {}}, "has perpetual markets"),
        ({"columns": "accounts"}, "the columns must be a list of names"),
        ({"columns": [1, 2, 3, 4, 5, 6, 7, "accounts", 9]}, "the columns must be a list of names"),
        ({"columns": ["accounts"] * 9}, "a column is there twice"),
        ({"totals": ["5"]}, "the header must have one amount for each of the 9 columns"),
        ({"trialBalance": {}}, "the trial balance is missing"),
        ({"system": []}, "the trial balance is missing"),
        ({"trialBalance": [{**BTC_LINE, "columns": ["BTC.hidden"]}]}, "names a column that does not exist"),
        ({"trialBalance": [{**BTC_LINE, "asset": "USDC"}]}, "shows a column of another asset under USDC"),
        ({"trialBalance": [{**BTC_LINE, "atoms": "-9"}]}, "leaves sum to 8, the trial balance to 9"),
        ({"trialBalance": [{**BTC_LINE, "atoms": "8"}]}, "BTC subaccount/available is on the wrong side"),
        ({"trialBalance": [{**BTC_LINE, "atoms": "-0"}]}, "atoms is a negative zero"),
        ({"trialBalance": [BTC_LINE, BTC_LINE]}, "does not show every column of the ledger exactly once"),
    ],
)
def test_a_signed_header_that_makes_no_sense_is_refused(fields: dict[str, Any], says: str) -> None:
    """[R-5, R-6]"""
    proof = first_proof()

    assert says in refusal(signed(proof, {**json.loads(proof["header"]), **fields}))


def test_a_header_that_does_not_count_accounts_below_zero_is_refused() -> None:
    """[R-7]"""
    proof = first_proof()
    header = json.loads(proof["header"])
    header["columns"][-1] = "something_else"

    assert "accounts below zero are not counted" in refusal(signed(proof, header))


@pytest.mark.parametrize(
    "prices, says",
    [
        ({}, "the price set is not a list"),
        ([{"asset": "BTC", "price": "1"}], "price must have exactly the fields"),
        ([{"asset": "BTC", "price": "-1", "atUs": 0}], "price is not an amount"),
        (["USDC", "BTC"], "the price set names an asset twice or out of order"),
        (["BTC", "BTC"], "the price set names an asset twice or out of order"),
    ],
)
def test_a_signed_price_set_that_makes_no_sense_is_refused(prices: Any, says: str) -> None:
    """[R-5]"""
    proof = first_proof()
    header = json.loads(proof["header"])
    if says.endswith("order"):
        prices = [{"asset": asset, "price": "1", "atUs": header["atUs"]} for asset in prices]

    assert says in refusal(signed(proof, header, prices=canonical_json(prices)))


@pytest.mark.parametrize(
    "parameters, says",
    [
        ('{"a": 1}', "parameters is not in canonical form"),
        ('{"b":1,"a":1}', "parameters is not in canonical form"),
        ('{"a":1,"a":1}', "parameters is not JSON"),
        ('{"a":1.5}', "parameters is not JSON"),
        ('{"a":NaN}', "parameters is not JSON"),
    ],
)
def test_signed_parameters_that_are_not_canonical_are_refused(parameters: str, says: str) -> None:
    """One hash, one reading.   [R-5]"""
    proof = first_proof()

    assert says in refusal(signed(proof, json.loads(proof["header"]), parameters=parameters))


def test_a_detail_that_is_not_an_object_is_refused() -> None:
    proof = first_proof()
    proof["leaf"]["detail"] = "[]"

    assert "the leaf's detail is not an object" in refusal(proof)


def first_proof() -> Proof:
    epoch = sample_epoch()
    return copy.deepcopy(proof_of(Log([epoch.header]), epoch, 31))


def test_a_shrunk_hole_is_refused() -> None:
    """The deficit of accounts below zero cannot be hidden.   [R-7]"""
    epoch = sample_epoch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(epoch.header), "hole_atoms", 0)
        proof = proof_of(Log([epoch.header]), epoch, 21)

    assert "deficits of 900 with 400 of insurance do not leave a hole of 0" in refusal(proof)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda amounts: amounts.__setitem__(7, 2), "does not count as exactly one account"),
        (lambda amounts: amounts.__setitem__(7, 0), "does not count as exactly one account"),
        (lambda amounts: amounts.__setitem__(8, 1), "not counted rightly among the accounts below zero"),
        (lambda amounts: amounts.__setitem__(6, 1), "both non-zero"),
    ],
)
def test_a_leaf_that_miscounts_itself_is_refused(change: Callable[[list[int]], None], says: str) -> None:
    """[R-2, R-7]"""
    proof = sample_proof()
    amounts = [int(amount) for amount in proof["leaf"]["amounts"]]
    change(amounts)
    proof["leaf"]["amounts"] = [str(amount) for amount in amounts]

    assert says in refusal(proof)


def test_a_stale_price_set_is_refused_even_if_the_exchange_allows_it() -> None:
    """The customer's own limit stands above the header's.   [R-5]"""
    at_us = sample_image().at_us
    old = [msgspec.structs.replace(price, at_us=at_us - 7200 * 1_000_000) for price in sample_image().prices]
    epoch = sample_epoch(prices=old, price_max_age_us=86_400 * 1_000_000)
    proof = proof_of(Log([epoch.header]), epoch, 21)

    assert "the price of BTC is 7200.0 s old at the snapshot, allowed are 3600 s" in refusal(proof)
    verifier.verify(proof, max_price_age_s=7200)


@pytest.mark.parametrize("name", ["prices", "parameters", "codeVersion", "reserves"])
def test_a_text_that_does_not_match_its_hash_is_refused(name: str) -> None:
    """A price or parameter set that does not match its hash."""
    proof = sample_proof()
    proof[name] = proof[name].replace("0", "1", 1)

    assert f"{name} in the proof is not what the header commits to" in refusal(proof)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda statement: statement["lines"].pop(), "do not add up"),
        (lambda statement: statement["lines"][0].update(kind="hope"), "unknown kind hope"),
        (lambda statement: statement.update(lines={}), "the reserves statement has no lines"),
        (lambda statement: statement.update(assets=None), "the reserves statement has no lines"),
        (lambda statement: statement["assets"].pop(), "does not list every asset once"),
        (lambda statement: statement["assets"][0].update(liabilities="7"), "stated otherwise"),
        (lambda statement: statement["assets"][0].update(ratio="2000000000"), "the ratio is 1000000000"),
        (lambda statement: statement.update(epoch=1), "the reserves are of epoch 1"),
        (lambda statement: statement.update(atUs=1), "the reserves are of atUs 1"),
    ],
)
def test_a_signed_reserves_statement_that_does_not_add_up_is_refused(
    change: Callable[[dict[str, Any]], None], says: str
) -> None:
    """[R-12]"""
    honest = sample_epoch()
    statement = json.loads(honest.reserves)
    change(statement)
    text = canonical_json(statement)
    log, epoch = republished(honest, reserves_hash=text_hash(canonical.TAG_RESERVES, text))
    proof = proof_of(log, epoch, 21)
    proof["reserves"] = text

    assert says in refusal(proof)


# ------------------------------------------------------------------------------------------------------------- the log


def test_a_proof_against_a_root_that_is_not_in_the_log_is_refused() -> None:
    """[R-20]"""
    log, epochs = published()
    shadow = sample_epoch(log.rows[0], hour=HOUR + 1, before=5, code_version="shadow")
    proof = prove(shadow, 21, log.proof(1, log.checkpoint(KEY.sign, PUBLIC), PUBLIC))

    assert "the epoch's header is not in the log" in refusal(proof)
    assert verifier.verify(proof_of(log, epochs[1], 21))


def test_an_epoch_shown_at_another_place_of_the_log_is_refused() -> None:
    log, epochs = published()
    proof = prove(epochs[1], 21, log.proof(2, log.checkpoint(KEY.sign, PUBLIC), PUBLIC))

    assert "the header is of epoch 1, the log proof of row 2" in refusal(proof)


def test_a_missed_hour_proves_no_balance() -> None:
    """[R-24]"""
    proof = sample_proof()
    proof["header"] = missed_row(sample_epoch().header, HOUR + 1, "down").text()

    assert "row 1 of the log is a missed hour" in refusal(proof)


def test_a_wrong_log_size_is_refused() -> None:
    proof = sample_proof()
    proof["log"]["size"] = 4

    assert "the checkpoint is of 3 rows, the log proof of 4" in refusal(proof)


def test_a_forked_log_is_caught_by_whoever_remembers_a_checkpoint() -> None:
    """The client remembers the last checkpoint it saw.   [R-20]"""
    seen, _ = published(2)
    remembered = seen.checkpoint(KEY.sign, PUBLIC)
    log = Log([seen.rows[0]])
    other = sample_epoch(log.last, hour=HOUR + 1, before=5, code_version="rewritten")
    log.append(other.header)
    third = sample_epoch(log.last, hour=HOUR + 2, before=5)
    log.append(third.header)

    same_size = Log(log.rows[:2])
    assert "FORK" in refusal(proof_of(same_size, other, 21), known=[("my file", remembered)])
    assert "FORK" in refusal(proof_of(log, third, 21, (2,)), known=[("my file", remembered)])
    assert "does not connect" in refusal(proof_of(log, third, 21), known=[("my file", remembered)])
    exported = log.export(log.checkpoint(KEY.sign, PUBLIC), PUBLIC)
    assert "FORK" in refusal(exported, known=[("my file", remembered)])


def test_history_that_was_extended_verifies_in_both_directions() -> None:
    log, epochs = published(7)
    for old in range(1, 8):
        for new in range(old, 8):
            early, late = Log(log.rows[:old]), Log(log.rows[:new])
            remembered = [("my file", early.checkpoint(KEY.sign, PUBLIC))]
            verifier.verify(proof_of(late, epochs[0], 21, (old,)), known=remembered)
            newer = [("my file", late.checkpoint(KEY.sign, PUBLIC))]
            _, newest = verifier.verify(
                prove(epochs[0], 21, log.proof(0, early.checkpoint(KEY.sign, PUBLIC), PUBLIC, (new,))), known=newer
            )
            assert newest.split("\n")[1] == str(new)


def test_a_proof_signed_by_another_key_is_refused() -> None:
    """The key comes from a place the customer trusts.   [R-20]"""
    proof = sample_proof()

    assert "another key than the one you trust" in refusal(proof, key=("", bytes(32)))
    assert "another key" in refusal(proof, key=("other.example/log", PUBLIC))
    verifier.verify(proof, key=("", PUBLIC))
    verifier.verify(proof, key=verifier.decode_key(verifier_key("satchel-test/proof-of-reserves", PUBLIC), 0x01))


def test_a_checkpoint_in_a_file_must_be_signed_too() -> None:
    proof = sample_proof()
    size, root = 3, bytes(32)
    forged = signed_checkpoint("satchel-test/proof-of-reserves", size, root, lambda _: bytes(64), PUBLIC)

    assert "the signature on the checkpoint of 3 rows is wrong" in refusal(proof, known=[("a file", forged)])


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda proof: proof["path"].__setitem__(0, "00" * 32), "from 2 to 3 rows does not hold"),
        (lambda proof: proof["path"].pop(), "from 2 to 3 rows does not hold"),
        (lambda proof: proof["path"].append("00" * 32), "from 2 to 3 rows does not hold"),
        (lambda proof: proof.update(root="00" * 32), "from 2 to 3 rows does not hold"),
        (lambda proof: proof.update({"from": 1}), "from 1 to 3 rows does not hold"),
        (lambda proof: proof.update({"from": 0}), "from 0 to 3 rows does not hold"),
        (lambda proof: proof.update(to=4), "from 2 to 4 rows is not about this log of 3 rows"),
        (lambda proof: proof.update({"from": 3}), "from 3 to 3 rows is not about this log of 3 rows"),
    ],
)
def test_a_consistency_proof_that_does_not_hold_is_refused(change: Callable[[Proof], None], says: str) -> None:
    """[R-20]"""
    log, epochs = published(3)
    proof = proof_of(log, epochs[0], 21, (2,))
    change(proof["log"]["consistency"][0])

    assert says in refusal(proof)


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("\n3\n", "\n03\n", "size is not a number"),
        ("\n3\n", "\n-3\n", "size is not a number"),
        ("\n3\n", "\n\n3\n", "empty lines"),
        ("\n3\n", "\n3\r\n", "control characters"),
        ("\n3\n", "\n3\nAAAA\n", "the checkpoint's root is not 32 bytes"),
        ("=\n\n", "\n\n", "root is not base64"),
        ("— satchel-test", "— satchel-best", "not signed by this key"),
        ("— satchel-test", "— satchel+test", "signature line of the checkpoint is malformed"),
        ("satchel-test/proof-of-reserves\n3", "satchel-best/proof-of-reserves\n3", "not signed by this key"),
        ("\n3\n", "\n4\n", "the signature on the checkpoint of 4 rows is wrong"),
    ],
)
def test_a_checkpoint_that_is_malformed_or_altered_is_refused(old: str, new: str, says: str) -> None:
    """[R-20]"""
    proof = sample_proof()
    assert old in proof["log"]["checkpoint"]
    proof["log"]["checkpoint"] = proof["log"]["checkpoint"].replace(old, new, 1)

    assert says in refusal(proof)


def test_a_checkpoint_of_the_same_name_by_another_key_is_refused() -> None:
    """[R-20]"""
    log, epochs = published(1)
    checkpoint = signed_checkpoint("satchel-test/proof-of-reserves", 1, log.root(), KEY.sign, bytes(32))
    proof = prove(epochs[0], 21, log.proof(0, checkpoint, PUBLIC))

    assert "the checkpoint of 1 rows is not signed by this key" in refusal(proof)


def test_a_checkpoint_of_another_log_of_the_same_key_is_refused() -> None:
    """[R-20]"""
    proof = first_proof()
    log, _ = published(2)
    other = signed_checkpoint("other/proof-of-reserves", 1, log.root(1), KEY.sign, PUBLIC)
    document = log.export(log.checkpoint(KEY.sign, PUBLIC), PUBLIC)

    assert "the checkpoint in a file is of another log: other" in refusal(proof, known=[("a file", other)])
    assert "is not one of this log of 2 rows" in refusal(document, known=[("a file", other)])
    proof["log"]["checkpoint"] = other
    assert "the log other/proof-of-reserves is not that of satchel-test" in refusal(proof)
    document["checkpoint"] = signed_checkpoint("other/proof-of-reserves", 2, log.root(), KEY.sign, PUBLIC)
    assert "the checkpoint is of another log" in refusal(document)


def test_a_log_shorter_than_a_known_checkpoint_is_refused() -> None:
    """A cut tail is noticed by whoever kept a checkpoint.   [R-20]"""
    log, _ = published(3)
    cut = Log(log.rows[:2])
    known = [("my file", log.checkpoint(KEY.sign, PUBLIC))]

    assert "is not one of this log of 2 rows" in refusal(
        cut.export(cut.checkpoint(KEY.sign, PUBLIC), PUBLIC), known=known
    )


def test_a_log_of_another_version_is_refused() -> None:
    document = rows_of(lambda rows: rows)
    document["version"] = 2

    assert "log version 2 is not known" in refusal(document)


def test_witnesses_that_must_have_cosigned_are_required() -> None:
    """Independent witnesses can cosign.   [R-20]"""
    proof = sample_proof()
    witness = ("witness.example/w1", PUBLIC)
    assert "did not cosign" in refusal(proof, witnesses=[witness])

    proof["log"]["checkpoint"] = cosign(proof["log"]["checkpoint"], witness[0], KEY.sign, PUBLIC, 1_700_000_000)
    report, _ = verifier.verify(proof, witnesses=[witness])

    assert any("witness.example/w1 cosigned" in line for line in report)
    assert "did not cosign" in refusal(proof, witnesses=[("witness.example/w2", PUBLIC)])


def rows_of(change: Callable[[list[Any]], list[Any]]) -> Proof:
    """A log export whose rows were changed, signed again by the dishonest exchange."""
    log, _ = published(3)
    missed = missed_row(log.rows[2], HOUR + 3, "down")
    texts = [row.text() for row in change([*log.rows, missed])]
    leaves = [verifier.sha256(b"\x00" + verifier.row_hash(text)) for text in texts]
    name = "satchel-test/proof-of-reserves"
    checkpoint = signed_checkpoint(name, len(texts), verifier.tree_root(leaves), KEY.sign, PUBLIC)
    key = log.export(checkpoint, PUBLIC)["publicKey"]
    return {"format": "satchel-por-log", "version": 1, "rows": texts, "checkpoint": checkpoint, "publicKey": key}


def test_a_log_export_verifies_and_shows_missed_hours() -> None:
    """[R-24]"""
    report, _ = verifier.verify(rows_of(lambda rows: rows))

    assert any("Of 4 hours since the first epoch on the hour, 1 have no epoch." in line for line in report)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda rows: [rows[0], rows[2], rows[3]], "row 1 of the log says that it is epoch 2"),
        (lambda rows: [rows[1], rows[0]], "row 0 of the log says that it is epoch 1"),
        (lambda rows: [*rows, rows[3]], "row 4 of the log says that it is epoch 3"),
        (lambda rows: [rows[0], relinked(rows[2], rows[0], epoch=1)], "hours are left out"),
        (lambda rows: [rows[0], relinked(rows[1], rows[0], previous=bytes(32))], "does not follow the row before"),
        (lambda rows: [rows[0], relinked(rows[1], rows[0], block_height=1)], "goes back in time"),
        (lambda rows: [rows[0], relinked(rows[1], rows[0], exchange="other")], "is of another exchange"),
        (lambda rows: [rows[0], relinked(rows[1], rows[0], opened=1)], "does not count hours or accounts on"),
        (lambda rows: [rows[0], relinked(rows[1], rows[0], missed_hours=1)], "does not count hours or accounts on"),
        (lambda rows: [rows[0], relinked(rows[1], rows[0], first_hour=1)], "does not count hours or accounts on"),
        (lambda rows: [*rows[:3], relinked(rows[3], rows[2], missed_hours=0)], "does not count hours"),
        (lambda rows: [], "of another log"),
    ],
)
def test_a_signed_log_with_altered_rows_is_refused(change: Callable[[list[Any]], list[Any]], says: str) -> None:
    """Whatever the exchange signs, a left out hour shows.   [R-24]"""
    assert says in refusal(rows_of(change))


def relinked(row: Any, before: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(row, **{"previous": before.hash(), **fields})


def test_a_log_export_that_lacks_rows_of_the_checkpoint_is_refused() -> None:
    document = rows_of(lambda rows: rows)
    document["rows"].pop()

    assert "the checkpoint of 4 rows is not that of the 3 rows here" in refusal(document)


# ---------------------------------------------------------------------------------------------------- form and program


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda proof: proof.update(extra=1), "must have exactly the fields"),
        (lambda proof: proof.pop("prices"), "must have exactly the fields"),
        (lambda proof: proof.update(version=2), "version 2 is not known"),
        (lambda proof: proof.update(version=True), "version True is not known"),
        (lambda proof: proof.update(format="por"), "neither a proof nor a log"),
        (lambda proof: proof["leaf"].update(userId="2"), "userId is not a whole number"),
        (lambda proof: proof["leaf"].update(userId=2.0), "userId is not a whole number"),
        (lambda proof: proof["leaf"].update(salt=proof["leaf"]["salt"].upper()), "lower-case hexadecimal"),
        (lambda proof: proof.update(header=proof["header"].replace('"epoch":1', '"epoch": 1')), "canonical form"),
        (lambda proof: proof.update(header="{}"), "either an epoch or a missed hour"),
        (lambda proof: proof.update(header="[" * 100_000), "not JSON"),
        (lambda proof: proof.update(sums=None), "the path above the group"),
        (lambda proof: proof.update(log=[]), "must have exactly the fields"),
        (lambda proof: proof["log"].update(checkpoint="hello"), "not a signed note"),
        (lambda proof: proof["log"].update(checkpoint=proof["log"]["checkpoint"].replace("\u2014", "-")), "malformed"),
        (lambda proof: proof["log"].update(publicKey="AAAA"), "not an Ed25519 key"),
        (lambda proof: proof.update(codeVersion="\ud800"), "not valid Unicode"),
    ],
)
def test_a_malformed_proof_is_refused_and_never_crashes(change: Callable[[Proof], None], says: str) -> None:
    proof = sample_proof()
    change(proof)

    assert says in refusal(proof)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The verifier as a customer runs it: the file alone, isolated from this project and its packages."""
    command = [sys.executable, "-I", "-S", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_runs_alone_and_its_exit_code_tells(tmp_path: Path) -> None:
    """A single file with the standard library only.   [R-22]"""
    alone = tmp_path / "verifier.py"
    alone.write_bytes(VERIFIER.read_bytes())
    good, bad, broken = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "broken.json"
    good.write_text(json.dumps(sample_proof()))
    wrong = sample_proof()
    wrong["leaf"]["amounts"][1] = "1"
    bad.write_text(json.dumps(wrong))
    broken.write_text('{"format":1,"format":2}')
    key = sample_proof()["log"]["publicKey"]

    verified = run(alone, good, "--key", key, "--user", 2)
    refused = run(alone, bad)

    assert verified.returncode == 0, verified.stderr
    assert "VERIFIED: epoch 1 of satchel-test" in verified.stdout
    assert "USDC.available               70000 atoms" in verified.stdout
    assert "What this cannot prove:" in verified.stdout
    assert refused.returncode == 1
    assert refused.stdout.startswith("NOT VERIFIED: ")
    assert run(alone, good, "--user", 3).returncode == 1
    assert run(alone, broken).returncode == 2
    assert run(alone, tmp_path / "none.json").returncode == 2
    assert run(alone).returncode == 2
    assert run(alone, good, "--key", "nonsense").returncode == 2


@pytest.mark.parametrize(
    ("amount", "column", "shown"),
    [
        (12_500_000_000, "SOL.available", "12.5 SOL"),
        (1, "SOL.in_orders", "0.000000001 SOL"),
        (3_000_000_000, "SOL.", "3 SOL"),
        (0, "SOL.available", "0 SOL"),
        (7, "YEN.available", "7 YEN"),
        (12_500, "BTC.available", "12500 atoms"),
        (12_500, "collateral_value", "12500 quote atoms"),
        (2, "accounts", "2"),
    ],
)
def test_amounts_are_printed_with_the_decimals_that_the_proof_states(amount: int, column: str, shown: str) -> None:
    """R-22: an asset of which the committed parameters say nothing, or nonsense, stays in atoms."""
    parameters = '{"BTC":{"decimals":"8"},"ETH":7,"SOL":{"decimals":9},"YEN":{"decimals":0}}'

    assert verifier.quantity(amount, column, verifier.decimals_of(parameters)) == shown


def test_the_program_remembers_the_newest_checkpoint_and_notices_a_fork(tmp_path: Path) -> None:
    """[R-20]"""
    log, epochs = published(2)
    memory, proof_file = tmp_path / "checkpoint", tmp_path / "proof.json"

    def check(made_of: Log, epoch: Epoch, *known: int) -> int:
        proof_file.write_text(json.dumps(proof_of(made_of, epoch, 21, known)))
        return run(VERIFIER, proof_file, "--remember", memory).returncode

    assert check(log, epochs[1]) == 0
    assert memory.read_text() == log.checkpoint(KEY.sign, PUBLIC)
    third = sample_epoch(log.last, hour=HOUR + 2, before=5)
    longer = Log([*log.rows, third.header])
    assert check(longer, third) == 1, "without a consistency proof nothing is verified"
    assert check(longer, third, 2) == 0
    assert memory.read_text() == longer.checkpoint(KEY.sign, PUBLIC)
    fork = sample_epoch(log.rows[0], hour=HOUR + 1, before=5, code_version="fork")
    assert check(Log([log.rows[0], fork.header]), fork, 2) == 1
    assert memory.read_text() == longer.checkpoint(KEY.sign, PUBLIC)

    proof_file.write_text(json.dumps(proof_of(log, epochs[1], 21)))
    kept = tmp_path / "kept"
    kept.write_text(Log(log.rows[:2]).checkpoint(KEY.sign, PUBLIC))
    assert run(VERIFIER, proof_file, "--previous-checkpoint", kept, "--checkpoint", kept).returncode == 0


def test_a_file_cannot_write_lines_of_its_own_on_the_terminal(tmp_path: Path) -> None:
    proof = sample_proof()
    proof["version"] = "\nVERIFIED: all is well \x1b[2J"
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(proof))

    result = run(VERIFIER, path)

    assert result.returncode == 1
    assert result.stdout.count("\n") == 1
    assert "\x1b" not in result.stdout


def test_the_verifier_imports_nothing_but_the_standard_library() -> None:
    """[R-22]"""
    lines = VERIFIER.read_text().splitlines()
    imported = {
        line.split()[1].split(".")[0]
        for line in (line.strip() for line in lines)
        if line.startswith(("import ", "from "))
    }

    assert imported <= set(sys.stdlib_module_names)


def test_every_row_is_proven() -> None:
    """The sample has an account below zero, an empty one and a user with two subaccounts."""
    log, epochs = published(1)

    for subaccount_id, user_id, *_ in ROWS:
        verifier.verify(proof_of(log, epochs[0], subaccount_id), user=user_id, subaccount=subaccount_id)
