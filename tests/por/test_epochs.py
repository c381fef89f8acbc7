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
    sample_epoch,
    sample_image,
)


def test_every_account_of_every_epoch_gets_a_proof_that_verifies() -> None:
    """R-22"""
    log, epochs = published()

    for epoch in epochs:
        for row in ROWS:
            report, _ = verifier.verify(proof_of(log, epoch, row[0]), user=row[1], subaccount=row[0])
            assert report[0].startswith(f"VERIFIED: epoch {epoch.header.epoch}")
