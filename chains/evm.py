"""EVM chains through a JSON-RPC node: native coin and ERC-20, every read pinned to a block hash.   [D-2, D-7]

Needs the `evm` extra (web3, eth-account); nothing else in `chains` imports this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import rlp
from aiohttp import ClientError, ClientSession, ClientTimeout
from eth_utils import is_checksum_address, is_hex_address, to_checksum_address
from eth_utils.address import is_checksum_formatted_address
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from chains.adapter import (
    INTERNAL_INDEX,
    BlockRef,
    Fee,
    Identity,
    Inclusion,
    Kind,
    Moved,
    Payment,
    Reply,
    Transfer,
    TxStatus,
    Unavailable,
    Verdict,
    confirmed,
)

TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
TRANSFER_SELECTOR = bytes.fromhex("a9059cbb")
BALANCE_SELECTOR = "0x70a08231"
PLAIN_GAS = 21_000
TOKEN_GAS = 120_000
ZERO_ADDRESS = "0x" + 40 * "0"
_GONE = -32001
_PAYING_FRAMES = ("CALL", "CREATE", "CREATE2", "SELFDESTRUCT")


class EvmNode:
    """One EVM node as an adapter. It holds no key.

    `trace` asks the node's callTracer for payments made by inner calls; without it such payments show up only as
    an unexplained surplus in reconciliation. `final_tag` is the tag of the newest block called final.   [D-6]
    """

    def __init__(
        self,
        url: str,
        chain_id: int = 2,
        *,
        trace: bool = True,
        final_tag: str = "finalized",
        timeout_seconds: float = 10,
    ) -> None:
        self.chain_id = chain_id
        self._network: int | None = None
        self._trace = trace
        self._final_tag = final_tag
        self._provider = _Provider(url, timeout_seconds)

    async def close(self) -> None:
        """Close the connections to the node."""
        await self._provider.disconnect()

    # ---- reads ----

    async def identity(self) -> Identity:
        self._network = _number(await self._call("eth_chainId"))
        genesis = await self._call("eth_getBlockByNumber", "0x0", False)
        return Identity(str(self._network), str(_some(genesis, "genesis block")["hash"]))

    async def tip(self) -> BlockRef:
        return _block(_some(await self._call("eth_getBlockByNumber", "latest", False), "latest block"))

    async def final(self) -> BlockRef:
        return _block(_some(await self._call("eth_getBlockByNumber", self._final_tag, False), "final block"))

    async def block(self, height: int) -> BlockRef | None:
        block = await self._call("eth_getBlockByNumber", hex(height), False)
        return None if block is None else _block(block)

    async def transfers(self, block: BlockRef, watched: Collection[str], contracts: Collection[str]) -> list[Transfer]:
        full, receipts = await self._contents(block)
        found = [
            transfer
            for transaction, receipt in zip(full, receipts, strict=True)
            for transfer in _claims(transaction, receipt)
            if transfer.recipient in watched and transfer.amount
        ]
        if self._trace and any(_may_call(transaction) for transaction in full):
            found += [t for t in await self._inner_payments(block) if t.recipient in watched]
        return await confirmed(found, contracts, partial(self._growth, block, full, receipts))

    async def balance(self, address: str, contract: str, at: BlockRef) -> int:
        pinned = {"blockHash": at.hash, "requireCanonical": True}
        if contract == "":
            return _number(await self._call("eth_getBalance", address, pinned))
        data = BALANCE_SELECTOR + address[2:].lower().rjust(64, "0")
        return _word(await self._call("eth_call", {"to": contract, "data": data}, pinned))

    async def mined_nonces(self, address: str, at: BlockRef) -> int:
        pinned = {"blockHash": at.hash, "requireCanonical": True}
        return _number(await self._call("eth_getTransactionCount", address, pinned))

    async def status(self, tx_id: str) -> TxStatus:
        receipt = await self._call("eth_getTransactionReceipt", tx_id)
        transaction = await self._call("eth_getTransactionByHash", tx_id)
        if receipt is None or receipt.get("blockHash") is None:
            return TxStatus(pooled=transaction is not None)
        block = await self.block(_number(receipt["blockNumber"]))
        if block is None or block.hash != receipt["blockHash"] or transaction is None:
            raise Moved(f"transaction {tx_id} is moving between blocks")
        ok = _number(receipt["status"]) == 1
        fee = _number(receipt["gasUsed"]) * _number(receipt["effectiveGasPrice"])
        return TxStatus(mined=Inclusion(block, ok, fee, tuple(_claims(transaction, receipt))))

    # ---- payments ----

    def normalize(self, address: str) -> str | None:
        if not is_hex_address(address) or not address.startswith("0x") or address.lower() == ZERO_ADDRESS:
            return None
        if is_checksum_formatted_address(address) and not is_checksum_address(address):
            return None
        return str(to_checksum_address(address))

    async def quote(self, payment: Payment) -> Fee:
        latest = _some(await self._call("eth_getBlockByNumber", "latest", False), "latest block")
        priority = _number(await self._call("eth_maxPriorityFeePerGas"))
        self._network = _number(await self._call("eth_chainId"))
        target, value, data = _call_of(payment)
        call = {"from": payment.source, "to": target, "value": hex(value), "data": "0x" + data.hex()}
        try:
            estimate = _number(await self._call("eth_estimateGas", call))
        except Refused:
            estimate = TOKEN_GAS if payment.contract else PLAIN_GAS
        gas = estimate if estimate == PLAIN_GAS else estimate + estimate // 4
        return Fee(2 * _number(latest["baseFeePerGas"]) + priority, priority, gas)

    def build(self, payment: Payment, nonce: int, fee: Fee) -> bytes:
        assert self._network is not None, "a fee is quoted before a transaction is built"
        target, value, data = _call_of(payment)
        to = bytes.fromhex(target[2:])
        fields: list[Any] = [
            self._network, nonce, fee.priority_fee, fee.max_fee, fee.gas, to, value, data, []
        ]  # fmt: skip
        return b"\x02" + bytes(rlp.encode(fields))

    async def broadcast(self, raw: bytes) -> Reply:
        try:
            await self._call("eth_sendRawTransaction", "0x" + raw.hex())
        except Refused as refusal:
            return Reply(_verdict(str(refusal)), str(refusal))
        return Reply(Verdict.ACCEPTED)

    # ---- inside ----

    async def _contents(self, block: BlockRef) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Transactions and receipts of a block: complete and of this very block, or an exception.   [D-12]"""
        full = await self._call("eth_getBlockByHash", block.hash, True)
        if full is None:
            raise Moved(f"block {block.height} {block.hash} is unknown to the node")
        transactions = full["transactions"]
        receipts = await self._call("eth_getBlockReceipts", block.hash)
        if receipts is None:
            raise Moved(f"block {block.height} {block.hash} has no receipts")
        if [t["hash"] for t in transactions] != [r["transactionHash"] for r in receipts] or any(
            r["blockHash"] != block.hash for r in receipts
        ):
            raise Unavailable(f"block {block.height}: {len(transactions)} transactions, {len(receipts)} receipts")
        return transactions, receipts

    async def _growth(
        self, block: BlockRef, full: list[dict[str, Any]], receipts: list[dict[str, Any]], address: str, contract: str
    ) -> int:
        """How much a balance grew in a block, before what the address sent away itself."""
        parent = BlockRef(block.height - 1, block.parent, "", 0)
        grown = await self.balance(address, contract, block) - await self.balance(address, contract, parent)
        for transaction, receipt in zip(full, receipts, strict=True):
            if contract == "" and _address(transaction["from"]) == address:
                grown += _number(receipt["gasUsed"]) * _number(receipt["effectiveGasPrice"])
            grown += sum(
                claim.amount
                for claim in _claims(transaction, receipt)
                if claim.sender == address and claim.contract == contract
            )
        return grown

    async def _inner_payments(self, block: BlockRef) -> list[Transfer]:
        """Native coin paid by contracts. A frame counts only if neither it nor any ancestor failed.   [D-7]"""
        traces = await self._call("debug_traceBlockByHash", block.hash, {"tracer": "callTracer"})
        if not isinstance(traces, list):
            raise Unavailable(f"block {block.height}: no traces")
        found = []
        for trace in traces:
            if "result" not in trace:
                raise Unavailable(f"block {block.height}: trace of {trace.get('txHash')}: {trace.get('error')}")
            for position, frame in enumerate(_paying_frames(trace["result"])):
                found.append(
                    Transfer(
                        trace["txHash"], INTERNAL_INDEX + position, Kind.INTERNAL, "", _address(frame["from"]),
                        _address(frame["to"]), _number(frame["value"]), 0,
                    )
                )  # fmt: skip
        return found

    async def _call(self, method: str, *params: Any) -> Any:
        """One request. A node's refusal is `Refused`, anything short of an answer `Unavailable`.   [D-12]"""
        try:
            response: dict[str, Any] = dict(await self._provider.make_request(RPCEndpoint(method), params))
        except (TimeoutError, ClientError, OSError, ValueError) as fault:
            raise Unavailable(f"{method}: {type(fault).__name__} {fault}") from fault
        error = response.get("error")
        if error is not None:
            code, words = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
            if code == _GONE or "not found" in str(words).lower() or "unknown block" in str(words).lower():
                raise Moved(f"{method}: {words}")
            if method in ("eth_sendRawTransaction", "eth_estimateGas"):
                raise Refused(str(words))
            raise Unavailable(f"{method}: {code} {words}")
        if "result" not in response:
            raise Unavailable(f"{method}: neither result nor error")
        return response["result"]


class _Provider(AsyncJSONBaseProvider):
    """web3's JSON-RPC over one kept connection.

    web3's own HTTP provider takes a lock of the whole process in a thread on every request; a call that is cancelled
    there, by a timeout or at shutdown, never gives it back and every later call of the process waits for ever.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__()
        self._url = url
        self._timeout = ClientTimeout(total=timeout_seconds)
        self._session: ClientSession | None = None

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        if self._session is None:
            self._session = ClientSession(raise_for_status=True, timeout=self._timeout)
        body = self.encode_rpc_request(method, params)
        async with self._session.post(self._url, data=body, headers={"Content-Type": "application/json"}) as answer:
            return self.decode_rpc_response(await answer.read())

    async def disconnect(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class Refused(Exception):
    """The node understood and said no; never leaves this module."""


def _claims(transaction: dict[str, Any], receipt: dict[str, Any]) -> Iterator[Transfer]:
    """What a successful transaction itself and its Transfer logs claim; a failed one claims nothing.   [D-7]"""
    if _number(receipt["status"]) != 1:
        return
    tx_id, sender = str(receipt["transactionHash"]), _address(transaction["from"])
    if transaction.get("to") and _number(transaction["value"]):
        amount, recipient = _number(transaction["value"]), _address(transaction["to"])
        yield Transfer(tx_id, 0, Kind.NATIVE, "", sender, recipient, amount, 0)
    for position, log in enumerate(receipt["logs"]):
        topics, data = log["topics"], log["data"]
        if len(topics) == 3 and topics[0] == TRANSFER_TOPIC and len(data) == 66 and not log.get("removed"):
            yield Transfer(
                tx_id, 1 + position, Kind.TOKEN, _address(log["address"]), _address("0x" + topics[1][-40:]),
                _address("0x" + topics[2][-40:]), int(data, 16), 0,
            )  # fmt: skip


def _paying_frames(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Inner frames that move coin, in order; a failed frame takes everything below it along."""
    if root.get("error"):
        return
    for frame in root.get("calls", ()):
        if not frame.get("error"):
            if frame["type"] in _PAYING_FRAMES and frame.get("to") and _number(frame.get("value", "0x0")):
                yield frame
            yield from _paying_frames(frame)


def _may_call(transaction: dict[str, Any]) -> bool:
    """Whether a transaction can have inner calls: it creates a contract, or carries data or coin to one."""
    return transaction.get("to") is None or transaction["input"] != "0x" or _number(transaction["gas"]) != PLAIN_GAS


def _call_of(payment: Payment) -> tuple[str, int, bytes]:
    """(target, value, data) of a payment."""
    if payment.contract == "":
        return payment.recipient, payment.amount, b""
    recipient = bytes.fromhex(payment.recipient[2:]).rjust(32, b"\0")
    return payment.contract, 0, TRANSFER_SELECTOR + recipient + payment.amount.to_bytes(32, "big")


def _verdict(words: str) -> Verdict:
    """Nodes word the same answer differently.   [D-8]"""
    lower = words.lower()
    if "already known" in lower or "already imported" in lower or "known transaction" in lower:
        return Verdict.KNOWN
    if "nonce too low" in lower or "oldnonce" in lower or "already mined" in lower:
        return Verdict.NONCE_USED
    if "underpriced" in lower or "less than block base fee" in lower or "fee too low" in lower:
        return Verdict.UNDERPRICED
    return Verdict.REFUSED


def _block(block: dict[str, Any]) -> BlockRef:
    return BlockRef(
        _number(block["number"]), block["hash"], block["parentHash"], _number(block["timestamp"]) * 1_000_000
    )


def _some(value: Any, what: str) -> Any:
    if value is None:
        raise Unavailable(f"the node has no {what}")
    return value


def _number(text: Any) -> int:
    if not isinstance(text, str):
        raise Unavailable(f"a number was expected, not {text!r}")
    return int(text, 16)


def _word(text: Any) -> int:
    """One 32-byte result of a call; a contract that answers anything else is no token."""
    if not isinstance(text, str) or len(text) != 66:
        raise Unavailable(f"32 bytes were expected, not {text!r}")
    return int(text, 16)


def _address(text: str) -> str:
    return str(to_checksum_address(text))
