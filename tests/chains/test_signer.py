"""The signer keeps its keys to itself and enforces limits from the bytes it signs.   [D-10]"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chains import simulated
from chains.signer import DAY_US, Limit, Policy, Signer, SigningRefused, create_keystore
from chains.simulated import InnerCall, Pay, Relay, SimulatedTransaction, TransferToken
from tests.chains.world import Clock

SEED = bytes(range(64))
NETWORK = "simulated:test"


def make(folder: Path, *, most: int = 1_000, daily: int = 2_500, clock: Clock | None = None) -> Signer:
    if not (folder / "keystore.json").exists():
        create_keystore(folder / "keystore.json", None, seed=SEED)
    policy = Policy("simulated", NETWORK, {"": Limit(most, daily), "GOLD": Limit(10, 10)}, most_fee=500)
    return Signer(
        folder / "keystore.json", passphrase=None, policies={1: policy}, clock_us=clock or Clock(),
        usage=folder / "signed.jsonl",
    )  # fmt: skip


def payment(signer: Signer, amount: int, *, wallet: int = 0, nonce: int = 0, to: str = "stranger", fee: int = 100,
            network: str = NETWORK, action: object = None) -> bytes:  # fmt: skip
    sender = signer.address("simulated", wallet)
    return simulated.encode(
        SimulatedTransaction(network, sender, nonce, fee, 1, 1, action or Pay(to, amount))  # type: ignore[arg-type]
    )


def refused(signer: Signer, unsigned: bytes, wallet: int = 0) -> str:
    with pytest.raises(SigningRefused) as refusal:
        signer.sign(1, wallet, unsigned)
    return str(refusal.value)


def test_a_payment_within_the_limits_is_signed_and_verifies(tmp_path: Path) -> None:
    signer = make(tmp_path)
    signed = signer.sign(1, 0, payment(signer, 1_000))

    chain = simulated.SimulatedChain(seed="x")
    assert "wrong network" in chain.accept(signed.raw).words, "the signature was checked before the network"


@pytest.mark.parametrize("amount", [1_001, 10**30])
def test_one_transaction_over_its_limit_is_refused(tmp_path: Path, amount: int) -> None:
    signer = make(tmp_path)

    assert "at most 1000" in refused(signer, payment(signer, amount))


def test_the_daily_limit_survives_a_restart_and_ends_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    signer = make(tmp_path, clock=clock)
    for nonce in range(2):
        signer.sign(1, 0, payment(signer, 1_000, nonce=nonce))
    signer = make(tmp_path, clock=clock)
    assert "2000 + 1000 in 24 hours, at most 2500" in refused(signer, payment(signer, 1_000, nonce=2))

    clock.now_us += DAY_US + 1
    signer.sign(1, 0, payment(signer, 1_000, nonce=2))


def test_one_nonce_pays_one_recipient_one_amount(tmp_path: Path) -> None:
    signer = make(tmp_path)
    signer.sign(1, 0, payment(signer, 700))
    signer.sign(1, 0, payment(signer, 700, fee=113))

    assert "already signed" in refused(signer, payment(signer, 700, to="another"))
    assert "already signed" in refused(signer, payment(signer, 701))


def test_a_cancellation_may_take_the_nonce_and_then_nothing_else(tmp_path: Path) -> None:
    signer = make(tmp_path)
    own = signer.address("simulated", 0)
    signer.sign(1, 0, payment(signer, 0, to=own))

    assert "already signed" in refused(signer, payment(signer, 5))


def test_a_bump_does_not_count_twice(tmp_path: Path) -> None:
    signer = make(tmp_path)
    for fee in range(100, 110):
        signer.sign(1, 0, payment(signer, 1_000, fee=fee))

    signer.sign(1, 0, payment(signer, 1_000, nonce=1))


def test_a_deposit_address_pays_only_the_hot_wallet(tmp_path: Path) -> None:
    signer = make(tmp_path)
    signer.sign(1, 5, payment(signer, 10**9, wallet=5, to=signer.address("simulated", 0)))

    assert "only the hot wallet" in refused(signer, payment(signer, 1, wallet=5, nonce=1), wallet=5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "simulated:other"}, "network"),
        ({"fee": 501}, "fee up to 501, at most 500"),
        ({"action": TransferToken("LEAD", "x", 1)}, "not listed"),
        ({"action": TransferToken("GOLD", "x", 11)}, "at most 10"),
        ({"action": Relay((InnerCall("x", 1),))}, "only payments"),
    ],
)
def test_what_is_not_an_ordinary_payment_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    signer = make(tmp_path)

    assert words in refused(signer, payment(signer, 1, **change))  # type: ignore[arg-type]


def test_the_sender_must_be_the_wallet_and_the_chain_known(tmp_path: Path) -> None:
    signer = make(tmp_path)

    assert "sender" in refused(signer, payment(signer, 1, wallet=3), wallet=0)
    with pytest.raises(SigningRefused, match="no policy"):
        signer.sign(9, 0, payment(signer, 1))


def test_a_keystore_rests_encrypted_and_a_changed_one_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    create_keystore(path, "correct horse", seed=SEED)
    body = json.loads(path.read_text())
    assert SEED.hex() not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600

    sealed = Signer(path, passphrase="correct horse", policies={}, clock_us=Clock())
    create_keystore(tmp_path / "clear.json", None, seed=SEED)
    clear = Signer(tmp_path / "clear.json", passphrase=None, policies={}, clock_us=Clock())
    assert sealed.address("simulated", 1) == clear.address("simulated", 1)
    with pytest.raises(ValueError, match="wrong passphrase"):
        Signer(path, passphrase="wrong", policies={}, clock_us=Clock())
    with pytest.raises(ValueError, match="no passphrase"):
        Signer(path, passphrase=None, policies={}, clock_us=Clock())
    path.write_text(json.dumps(body | {"sealed": body["sealed"][:-8] + "AAAAAAA="}))
    with pytest.raises(ValueError, match="changed"):
        Signer(path, passphrase="correct horse", policies={}, clock_us=Clock())


def test_a_key_file_that_others_may_read_is_not_opened(tmp_path: Path) -> None:
    make(tmp_path)
    os.chmod(tmp_path / "keystore.json", 0o644)

    with pytest.raises(PermissionError, match="0600"):
        make(tmp_path)


def test_a_keystore_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path)

    with pytest.raises(FileExistsError):
        create_keystore(tmp_path / "keystore.json", None)


def test_the_signer_prints_no_key(tmp_path: Path) -> None:
    signer = make(tmp_path)

    assert repr(signer) == "Signer(chains=[1])"


class TestEvm:
    """The same rules, read from RLP."""

    @pytest.fixture
    def signer(self, tmp_path: Path) -> Signer:
        pytest.importorskip("web3")
        create_keystore(tmp_path / "keystore.json", None, seed=SEED)
        policy = Policy("evm", "31337", {"": Limit(1_000, 2_500), GOLD: Limit(10, 10)}, most_fee=10**18)
        return Signer(tmp_path / "keystore.json", passphrase=None, policies={2: policy}, clock_us=Clock())

    def unsigned(self, *, to: str | None = None, value: int = 1, data: bytes = b"", chain: int = 31337, kind: int = 2,
                 access: list[object] | None = None) -> bytes:  # fmt: skip
        import rlp

        target = bytes.fromhex((to or STRANGER)[2:])
        return bytes([kind]) + rlp.encode([chain, 0, 1, 2, 21_000, target, value, data, access or []])

    def test_the_signed_bytes_recover_to_the_wallet(self, signer: Signer) -> None:
        from eth_account import Account

        signed = signer.sign(2, 0, self.unsigned())

        assert Account.recover_transaction(signed.raw) == signer.address("evm", 0)

    def test_the_token_transfer_is_read_from_the_call(self, signer: Signer) -> None:
        def call(amount: int) -> bytes:
            return bytes.fromhex("a9059cbb" + STRANGER[2:].rjust(64, "0") + f"{amount:064x}")

        signer.sign(2, 0, self.unsigned(to=GOLD, value=0, data=call(10)))
        with pytest.raises(SigningRefused, match="already signed for 10"):
            signer.sign(2, 0, self.unsigned(to=GOLD, value=0, data=call(9)))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"value": 1_001}, "at most 1000"),
            ({"chain": 1}, "network 1"),
            ({"kind": 1}, "EIP-1559"),
            ({"data": bytes.fromhex("095ea7b3") + bytes(64)}, "not a token transfer"),
            ({"data": bytes.fromhex("a9059cbb") + bytes(64)}, "not a token transfer"),
            ({"access": [[bytes(20), []]]}, "not a plain payment"),
        ],
    )
    def test_anything_else_is_refused(self, signer: Signer, change: dict[str, object], words: str) -> None:
        with pytest.raises(SigningRefused, match=words):
            signer.sign(2, 0, self.unsigned(**change))  # type: ignore[arg-type]

    def test_addresses_from_the_public_root_are_the_signers(self, signer: Signer) -> None:
        from chains.wallets import evm_derivation

        derive = evm_derivation(signer.public_root("evm"))

        assert [derive(n) for n in (0, 1, 77)] == [signer.address("evm", n) for n in (0, 1, 77)]
        assert derive(0) != derive(1)


GOLD = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
STRANGER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
