"""Whether a wallet can pay: on chain and in the ledger, beside everything that is already under way.   [D-8]"""

from __future__ import annotations

from chains.adapter import Adapter, Payment
from chains.exchange import Exchange, Token
from chains.outbox import Outbox, Sending


async def shortfall(outbox: Outbox, node: Adapter, exchange: Exchange, wallet: int, payment: Payment) -> str:
    """What a wallet lacks to make a payment and bear its fee, in words; "" when it lacks nothing."""
    chain_id, native = node.chain_id, native_coin(exchange, node.chain_id)
    tip, fee = await node.tip(), await node.quote(payment)
    needed = {payment.contract: payment.amount}
    needed[native.contract] = needed.get(native.contract, 0) + fee.most
    under_way = [row for row in await outbox.unfinished() if row.wallet == wallet]
    for contract, base in needed.items():
        coin = coin_of(exchange, chain_id, contract)
        moving = [row for row in under_way if row.contract == contract]
        unmined = sum(int(row.amount) for row in moving if row.state in (Sending.RESERVED, Sending.SIGNED))
        on_chain = await node.balance(payment.source, contract, tip) - unmined
        booked = exchange.ledger_balance(chain_id, wallet, coin.asset_id) * coin.base_per_atom
        in_ledger = booked - sum(int(row.amount) for row in moving)
        if base > min(on_chain, in_ledger):
            return f"wallet {wallet} needs {base} of {coin.symbol}, has {on_chain} on chain, {in_ledger} in the ledger"
    return ""


def native_coin(exchange: Exchange, chain_id: int) -> Token:
    """The coin that pays the chain's fees. A chain without it cannot be operated: its fees could not be booked."""
    return coin_of(exchange, chain_id, "")


def coin_of(exchange: Exchange, chain_id: int, contract: str) -> Token:
    """The listed token of a contract."""
    found = next((token for token in exchange.tokens(chain_id) if token.contract == contract), None)
    assert found is not None, f"chain {chain_id} does not list {contract or 'its native coin'}"
    return found
