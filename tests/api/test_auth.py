"""Signed requests as clients really write them: every quirk verifies, every forgery fails.   [W-1]"""

from __future__ import annotations

import asyncio
import os
import signal
from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from api.auth import Authenticator, Credentials, command_fields, credentials_of, texts
from api.errors import ApiError
from api.limits import RateLimits
from api.requests import fields_of
from api.verification_pool import VerificationPool, is_signed
from engine.state import ApiKey, State

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x07")
PUBLIC = PRIVATE.public_key().public_bytes_raw()
NOW = 1_614_550_000_000

ORDER = {"orderType": "Limit", "price": "141", "quantity": "12", "side": "Bid", "symbol": "SOL_USDC_PERP"}


def headers(text: str, window: str | None = "5000", timestamp: str = str(NOW)) -> dict[str, str]:
    sent = {
        "X-API-Key": b64encode(PUBLIC).decode(),
        "X-Signature": b64encode(PRIVATE.sign(text.encode())).decode(),
        "X-Timestamp": timestamp,
    }
    return sent if window is None else sent | {"X-Window": window}


async def verified(
    instruction: str, groups: list[dict[str, Any]], sent: dict[str, str], now_ms: int = NOW
) -> bytes:
    state = State()
    state.api_keys[PUBLIC] = ApiKey(1, 1)
    authenticator = Authenticator(state, VerificationPool(0), RateLimits(clock=lambda: 0.0))
    pairs = [sorted(group.items(), key=lambda pair: pair[0]) for group in groups]
    return await authenticator.verify(credentials_of(sent), instruction, pairs, "here", now_ms)


@pytest.mark.parametrize(
    ("instruction", "groups", "text"),
    [
        (
            "orderCancel",
            [{"symbol": "BTC_USDT", "orderId": "28"}],
            "instruction=orderCancel&orderId=28&symbol=BTC_USDT&timestamp=1614550000000&window=5000",
        ),
        (
            "orderExecute",
            [ORDER, ORDER | {"price": "140", "quantity": "11"}],
            "instruction=orderExecute&orderType=Limit&price=141&quantity=12&side=Bid&symbol=SOL_USDC_PERP"
            "&instruction=orderExecute&orderType=Limit&price=140&quantity=11&side=Bid&symbol=SOL_USDC_PERP"
            "&timestamp=1750793021519&window=5000",
        ),
    ],
)
def test_the_contracts_own_texts_are_rebuilt_byte_for_byte(
    instruction: str, groups: list[dict[str, Any]], text: str
) -> None:
    """W-1"""
    timestamp = text.rpartition("&timestamp=")[2].partition("&")[0]
    pairs = [sorted(group.items()) for group in groups]

    assert next(texts(instruction, pairs, timestamp, "5000")) == text.encode()


QUIRKS: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    "a body's booleans are lower-case": (
        "accountUpdate",
        [{"autoLend": True, "leverageLimit": "5"}],
        "instruction=accountUpdate&autoLend=true&leverageLimit=5",
    ),
    "bpx-py and the SDK send True on the query and sign true": (
        "maxOrderQuantity",
        [{"autoBorrow": "True", "symbol": "SOL_USDC"}],
        "instruction=maxOrderQuantity&autoBorrow=true&symbol=SOL_USDC",
    ),
    "a client that signs True as it sends it": (
        "depositQueryAll",
        [{"excludePlatform": "True"}],
        "instruction=depositQueryAll&excludePlatform=True",
    ),
    "ccxt signs the percent-encoded query": (
        "withdraw",
        [{"address": "ex:tern al=1", "symbol": "SOL"}],
        "instruction=withdraw&address=ex%3Atern%20al%3D1&symbol=SOL",
    ),
    "JavaScript encodes the slash too": (
        "keyAdd",
        [{"publicKey": "ab/+cd=="}],
        "instruction=keyAdd&publicKey=ab%2F%2Bcd%3D%3D",
    ),
    "another client signs such a value raw": (
        "keyAdd",
        [{"publicKey": "ab/+cd=="}],
        "instruction=keyAdd&publicKey=ab/+cd==",
    ),
    "Rust signs null for an unset field": (
        "vaultMint",
        [{"autoBorrow": None, "symbol": "USDC"}],
        "instruction=vaultMint&autoBorrow=null&symbol=USDC",
    ),
    "TypeScript sends null and does not sign it": (
        "orderCancel",
        [{"clientId": 7, "orderId": None, "symbol": "SOL_USDC"}],
        "instruction=orderCancel&clientId=7&symbol=SOL_USDC",
    ),
    "a bare key from None is signed without": (
        "orderQueryAll",
        [{"symbol": ""}],
        "instruction=orderQueryAll",
    ),
    "nothing at all": ("accountUpdate", [{}], "instruction=accountUpdate"),
}


@pytest.mark.parametrize("quirk", QUIRKS)
async def test_clients_habits_verify(quirk: str) -> None:
    """W-1"""
    instruction, groups, signed = QUIRKS[quirk]
    text = f"{signed}&timestamp={NOW}&window=5000"

    assert await verified(instruction, groups, headers(text)) == text.encode()


async def test_repeated_array_keys_are_signed_in_the_order_sent() -> None:
    """W-1, W-3"""
    text = f"instruction=fillHistoryQueryAll&marketType=SPOT&marketType=PERP&symbol=X&timestamp={NOW}&window=5000"
    pairs = [("marketType", "SPOT"), ("marketType", "PERP"), ("symbol", "X")]

    assert text.encode() in set(texts("fillHistoryQueryAll", [pairs], str(NOW), "5000"))


async def test_the_default_window_is_in_the_text_though_the_header_is_absent() -> None:
    """W-1"""
    text = f"instruction=balanceQuery&timestamp={NOW}&window=5000"

    assert await verified("balanceQuery", [{}], headers(text, window=None)) == text.encode()


@pytest.mark.parametrize("position", range(0, 90, 7))
async def test_a_flipped_byte_fails(position: int) -> None:
    """W-1"""
    text = bytearray(f"instruction=orderCancel&orderId=28&symbol=BTC_USDT&timestamp={NOW}&window=5000".encode())
    text[position % len(text)] ^= 1
    signature = b64encode(PRIVATE.sign(bytes(text))).decode()
    good = f"instruction=orderCancel&orderId=28&symbol=BTC_USDT&timestamp={NOW}&window=5000"

    with pytest.raises(ApiError) as refused:
        await verified(
            "orderCancel", [{"orderId": "28", "symbol": "BTC_USDT"}], headers(good) | {"X-Signature": signature}
        )
    assert (refused.value.status, refused.value.code) == (400, "INVALID_CLIENT_REQUEST")
    assert refused.value.message == "Invalid signature"


async def test_another_instruction_is_an_invalid_signature() -> None:
    """W-4: 400, not 401."""
    text = f"instruction=orderQueryAll&timestamp={NOW}&window=5000"

    with pytest.raises(ApiError) as refused:
        await verified("orderCancelAll", [{}], headers(text))
    assert (refused.value.status, refused.value.message) == (400, "Invalid signature")


@pytest.mark.parametrize(
    ("timestamp", "window", "message"),
    [
        (NOW - 5001, "5000", "Request has expired"),
        (NOW - 60_001, "60000", "Request has expired"),
        (NOW + 5001, "5000", "Invalid timestamp"),
        (NOW, "60001", "Invalid X-Window header"),
        (NOW, "-1", "Invalid X-Window header"),
        ("soon", "5000", "Invalid timestamp"),
        ("٣٣", "5000", "Invalid timestamp"),
        ("1" * 40, "5000", "Invalid timestamp"),
    ],
)
async def test_what_is_too_old_too_early_or_no_time_is_refused(timestamp: object, window: str, message: str) -> None:
    """W-1, W-4"""
    text = f"instruction=balanceQuery&timestamp={timestamp}&window={window}"

    with pytest.raises(ApiError) as refused:
        await verified("balanceQuery", [{}], headers(text, window, str(timestamp)))
    assert refused.value.code == "INVALID_CLIENT_REQUEST"
    assert refused.value.message.startswith(message)


async def test_the_edges_of_the_window_pass() -> None:
    for at in (NOW - 5000, NOW + 5000):
        text = f"instruction=balanceQuery&timestamp={at}&window=5000"
        assert await verified("balanceQuery", [{}], headers(text, "5000", str(at)))


@pytest.mark.parametrize(
    ("name", "value", "status", "message"),
    [
        ("X-API-Key", "not base64!", 401, "Unauthorized"),
        ("X-API-Key", b64encode(bytes(31)).decode(), 401, "Unauthorized"),
        ("X-Signature", "%%%", 400, "Invalid X-Signature header"),
        ("X-Signature", b64encode(bytes(63)).decode(), 400, "Invalid X-Signature header"),
        ("X-Signature", b64encode(bytes(64)).decode(), 400, "Invalid signature"),
    ],
)
async def test_broken_headers(name: str, value: str, status: int, message: str) -> None:
    sent = headers(f"instruction=balanceQuery&timestamp={NOW}&window=5000") | {name: value}

    with pytest.raises(ApiError) as refused:
        await verified("balanceQuery", [{}], sent)
    assert (refused.value.status, refused.value.message) == (status, message)


def test_small_order_keys_and_malleable_signatures_are_refused() -> None:
    """A key of small order would sign every text; S + L would be a second signature of the same request."""
    text = b"instruction=balanceQuery&timestamp=1&window=5000"
    signature = PRIVATE.sign(text)
    order = 2**252 + 27742317777372353535851937790883648493
    doubled = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")

    assert is_signed(PUBLIC, signature, text)
    assert not is_signed(PUBLIC, doubled, text)
    assert not is_signed(b"\x01" + bytes(31), b"\x01" + bytes(63), text)


def test_the_same_signed_text_never_stands_for_two_requests() -> None:
    """A-5: what shifts a value into the next field is refused, though its signature holds."""
    honest = f"instruction=withdraw&address=A&clientId=x&quantity=1&symbol=SOL&timestamp={NOW}&window=5000"
    shifted = [[("address", "A&clientId=x"), ("quantity", "1"), ("symbol", "SOL")]]
    coded = f"instruction=withdraw&address=a%2541&symbol=SOL&timestamp={NOW}&window=5000"

    assert next(texts("withdraw", shifted, str(NOW), "5000")) == honest.encode()
    with pytest.raises(ApiError):
        command_fields(honest.encode(), shifted)
    with pytest.raises(ApiError):
        command_fields(coded.encode(), [[("address", "a%2541"), ("symbol", "SOL")]])


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abcd"),
            st.none() | st.booleans() | st.integers(0, 99) | st.sampled_from(["", "null", "True", "x&a=1", "%41", "y"]),
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_read_from_a_request_is_what_an_auditor_reads_from_its_text(groups: list[dict[str, Any]]) -> None:
    """A-5: for every spelling of every request, the two agree or the request is refused."""
    pairs = [sorted(group.items()) for group in groups]
    for text in texts("withdraw", pairs, "1", "5000"):
        try:
            stated = command_fields(text, pairs)
        except ApiError:
            continue
        assert stated == [fields for _instruction, fields in fields_of(text)]


def test_fields_come_back_from_raw_and_encoded_texts() -> None:
    """A-5"""
    raw = b"instruction=withdraw&address=a:b=c/d&symbol=SOL&twoFactorToken=null&timestamp=1&window=5000"
    encoded = b"instruction=withdraw&address=a%3Ab%3Dc%2Fd&symbol=SOL&timestamp=1&window=5000"

    assert fields_of(raw) == fields_of(encoded) == [("withdraw", {"address": "a:b=c/d", "symbol": "SOL"})]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"timestamp=1&window=5000",
        b"instruction=a",
        b"instruction=a&b&timestamp=1&window=5000",
        b"instruction=a&b=1&b=2&timestamp=1&window=5000",
        b"instruction=a&instruction=b&timestamp=1&window=5000",
        b"b=1&timestamp=1&window=5000",
        b"instruction=a&timestamp=x&window=5000",
        b"instruction=a&b=%FF&timestamp=1&window=5000",
        b"instruction=a&b=\xff&timestamp=1&window=5000",
    ],
)
def test_a_text_that_says_nothing_clear_is_not_read(text: bytes) -> None:
    with pytest.raises(ValueError):
        fields_of(text)


async def test_wrong_signatures_are_counted_against_the_address() -> None:
    """W-5"""
    state = State()
    limits = RateLimits(unverified=2, clock=lambda: 0.0)
    authenticator = Authenticator(state, VerificationPool(0), limits)
    sent = Credentials(*headers("something else").values())

    messages = []
    for _ in range(3):
        with pytest.raises(ApiError) as refused:
            await authenticator.verify(sent, "balanceQuery", [()], "mallory", NOW)
        messages.append(refused.value.code)

    assert messages == ["INVALID_CLIENT_REQUEST", "INVALID_CLIENT_REQUEST", "TOO_MANY_REQUESTS"]


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_the_pool_answers_in_order_with_any_number_of_workers(workers: int) -> None:
    """W-1"""
    pool = VerificationPool(workers)
    await pool.start()
    texts_ = [f"instruction=balanceQuery&n={number}".encode() for number in range(200)]
    signatures = [PRIVATE.sign(text) for text in texts_]

    try:
        answers = await asyncio.gather(
            *(
                pool.verify(PUBLIC, signature, text if number % 3 else text + b"!")
                for number, (signature, text) in enumerate(zip(signatures, texts_, strict=True))
            )
        )
    finally:
        await pool.close()

    assert answers == [number % 3 != 0 for number in range(200)]


async def test_a_worker_that_dies_is_not_missed() -> None:
    """Its questions are answered inline: nobody waits for ever, nothing passes unchecked."""
    pool = VerificationPool(1)
    await pool.start()
    text = b"instruction=balanceQuery"
    signature = PRIVATE.sign(text)
    os.kill(pool._workers[0]._process.pid, signal.SIGSTOP)
    waiting = [asyncio.ensure_future(pool.verify(PUBLIC, signature, text + bytes([n]) if n else text)) for n in (0, 1)]
    await asyncio.sleep(0.05)
    os.kill(pool._workers[0]._process.pid, signal.SIGKILL)

    answers = await asyncio.gather(*waiting)
    after = await pool.verify(PUBLIC, signature, text)
    await pool.close()

    assert answers == [True, False]
    assert after is True
