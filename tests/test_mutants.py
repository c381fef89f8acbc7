"""A sample of the planted bugs; `make mutants` plants all of them.   [S-7, A-4]"""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, judge

SAMPLE = ("locked funds are spent twice", "fees are rounded down", "postings are little-endian")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_planted_bug_is_noticed(name: str) -> None:
    verdict = judge(next(mutant for mutant in MUTANTS if mutant.name == name))

    assert verdict.is_caught, verdict.by


def test_every_planted_bug_still_finds_its_place() -> None:
    """Code moves; a mutant whose place is gone would prove nothing."""
    lost = [mutant.name for mutant in MUTANTS if (ROOT / mutant.path).read_text().count(mutant.old) != 1]

    assert lost == []
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
