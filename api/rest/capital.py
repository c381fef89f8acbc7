"""Balances, deposit addresses, deposits and withdrawals.   [D-3, D-8]"""

from __future__ import annotations

from api import contract
from api.errors import bad_request
from api.history.custody import read_deposits, read_withdrawals
from api.requests import chain_of, command_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.commands import RequestWithdrawal


async def get_balances(call: Call) -> dict[str, contract.Balance]:
    return call.codec.balances(call.key.subaccount_id)


async def get_deposit_address(call: Call) -> contract.DepositAddress:
    query: contract.DepositAddressQuery = call.query
    chain_id = chain_of(query.blockchain, call.state)
    address = await _deposit_address(call, call.key.subaccount_id, chain_id)
    if address is None:
        raise bad_request(f"Blockchain {query.blockchain} takes no deposits here")
    return contract.DepositAddress(address)


async def get_deposits(call: Call) -> Answer:
    query: contract.DepositsQuery = call.query
    page = page_of(query.limit, query.offset)
    subaccount_id = call.key.subaccount_id
    rows, total = await read_deposits(call.node.history, subaccount_id, page, from_ms=query.from_, to_ms=query.to)
    addresses: dict[tuple[int, int], str | None] = {}
    for row in rows:
        place = row.wallet or subaccount_id, row.chain_id
        if place not in addresses:
            addresses[place] = await _deposit_address(call, *place)
    deposits = [call.codec.deposit(row, addresses[row.wallet or subaccount_id, row.chain_id]) for row in rows]
    return paged(deposits, page, total)


async def get_withdrawals(call: Call) -> Answer:
    query: contract.WithdrawalsQuery = call.query
    page = page_of(query.limit, query.offset)
    rows, total = await read_withdrawals(
        call.node.history,
        call.key.subaccount_id,
        page,
        withdrawal_id=query.id,
        client_id=query.client_id,
        from_ms=query.from_,
        to_ms=query.to,
    )
    return paged([call.codec.withdrawal(row) for row in rows], page, total)


async def request_withdrawal(call: Call) -> contract.Withdrawal:
    """Answers when the hold is durable; the payout follows.   [D-8]"""
    fields = call.fields[0]
    command = command_of("withdraw", fields, call.key.subaccount_id, call.key.user_id, call.state)
    assert isinstance(command, RequestWithdrawal)
    if not call.node.can_pay(command.chain_id, command.address):
        raise bad_request(f"{command.address[:80]!a} is not an address on {fields['blockchain']}")
    outcome = await call.submit(command)
    return call.codec.withdrawal(outcome.reply)


async def _deposit_address(call: Call, subaccount_id: int, chain_id: int) -> str | None:
    """None for a chain that this node does not serve."""
    try:
        return await call.node.deposit_address(subaccount_id, chain_id)
    except KeyError:
        return None


ROUTES = [
    Route(
        method="GET",
        path="/api/v1/capital",
        handler=get_balances,
        summary="Balances by asset",
        tag="Capital",
        instruction="balanceQuery",
        answer=dict[str, contract.Balance],
    ),
    Route(
        method="GET",
        path="/wapi/v1/capital/deposit/address",
        handler=get_deposit_address,
        summary="The subaccount's deposit address on a chain",
        tag="Capital",
        instruction="depositAddressQuery",
        query=contract.DepositAddressQuery,
        answer=contract.DepositAddress,
    ),
    Route(
        method="GET",
        path="/wapi/v1/capital/deposits",
        handler=get_deposits,
        summary="Deposits, newest first",
        tag="Capital",
        instruction="depositQueryAll",
        query=contract.DepositsQuery,
        answer=list[contract.Deposit],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/capital/withdrawals",
        handler=get_withdrawals,
        summary="Withdrawals, newest first",
        tag="Capital",
        instruction="withdrawalQueryAll",
        query=contract.WithdrawalsQuery,
        answer=list[contract.Withdrawal],
        paged=True,
    ),
    Route(
        method="POST",
        path="/wapi/v1/capital/withdrawals",
        handler=request_withdrawal,
        summary="Withdraw to an address",
        tag="Capital",
        instruction="withdraw",
        body=contract.AccountWithdrawalPayload,
        answer=contract.Withdrawal,
        changes=True,
    ),
]
