"""Amounts are exact: every division rounds as its name says, every decimal string reads and prints itself.   [A-3]"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.amounts import (
    INT64_MAX,
    AmountError,
    format_decimal,
    mul_div_down,
    mul_div_half_even,
    mul_div_up,
    parse_decimal,
)
from ledger.chart import (
    CHART,
    AccountKind,
    account_id,
    account_name,
    account_type,
    available,
    custody_account,
    kind_of,
    owner_of,
)

wide = st.integers(-(10**40), 10**40)
divisors = st.integers(1, 10**20)


@given(wide, wide, divisors)
def test_roundings_do_as_they_are_named(a: int, b: int, divisor: int) -> None:
    exact = Fraction(a * b, divisor)
    down, up, nearest = (f(a, b, divisor) for f in (mul_div_down, mul_div_up, mul_div_half_even))

    assert down <= exact < down + 1
    assert up - 1 < exact <= up
    assert nearest == round(exact)


@given(st.integers(-(10**30), 10**30), st.integers(0, 18))
def test_what_is_printed_reads_as_itself(value: int, decimals: int) -> None:
    text = format_decimal(value, decimals)

    assert parse_decimal(text, decimals, limit=10**30) == value
    with localcontext() as context:
        context.prec = 60
        assert Decimal(text) == Decimal(value).scaleb(-decimals)
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("text", "decimals", "value"),
    [("1.5", 6, 1_500_000), ("-0.000001", 6, -1), ("007", 2, 700), ("1.500", 1, 15), ("0", 0, 0), ("-0", 3, 0)],
)
def test_decimal_strings(text: str, decimals: int, value: int) -> None:
    assert parse_decimal(text, decimals) == value


@pytest.mark.parametrize(
    "text",
    ["", "-", ".", "1.", ".5", "+1", " 1", "1 ", "1e5", "0x10", "nan", "inf", "1,5", "1_000", "١", "²", "1.5²", "--1"],
)
def test_what_is_no_decimal_string_is_an_error(text: str) -> None:
    with pytest.raises(AmountError):
        parse_decimal(text, 6)


def test_precision_and_range_are_errors_and_name_the_number() -> None:
    with pytest.raises(AmountError, match=r"1\.25 has more than 1 decimals"):
        parse_decimal("1.25", 1)
    with pytest.raises(AmountError, match="too large"):
        parse_decimal(str(INT64_MAX + 1), 0)
    with pytest.raises(AmountError, match="too long"):
        parse_decimal("1" * 61, 0)
    assert parse_decimal(str(INT64_MAX), 0) == INT64_MAX


@given(st.sampled_from(AccountKind), st.integers(0, 2**40 - 1))
def test_an_account_id_says_what_it_is(kind: AccountKind, owner: int) -> None:
    account = account_id(kind, owner)

    assert (kind_of(account), owner_of(account)) == (kind, owner)
    assert account < 2**63
    assert account_type(account) == CHART[kind].type
    assert "{" not in account_name(account)


def test_account_names() -> None:
    assert account_name(available(7)) == "subaccount/7/available"
    assert account_name(custody_account(1, 0)) == "custody/1/hot"
    assert account_name(custody_account(2, 7)) == "custody/2/deposit/7"
    assert account_name(200 << 40 | 5) == "unknown/200/5"
    assert set(CHART) == set(AccountKind)
