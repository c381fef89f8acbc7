"""A subaccount's deposits and withdrawals, looked up.   [W-3]"""

from __future__ import annotations

from api.history import schema
from api.history.following import History
from api.history.pages import in_time, read_page
from api.history.records import deposit_from, withdrawal_from
from api.rows import Page
from engine.events import DepositView, WithdrawalView


async def read_deposits(
    history: History, subaccount_id: int, page: Page, *, from_ms: int | None = None, to_ms: int | None = None
) -> tuple[list[DepositView], int]:
    """Deposits as they last stood, by id; with the number of all that match."""
    table = schema.deposit
    wanted = [table.c.subaccount_id == subaccount_id, *in_time(table.c.created_at_us, from_ms, to_ms)]
    return await read_page(history, table, wanted, (table.c.deposit_id,), page, deposit_from)


async def read_withdrawals(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    withdrawal_id: int | None = None,
    client_id: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> tuple[list[WithdrawalView], int]:
    """Withdrawals as they last stood, by id; with the number of all that match."""
    table = schema.withdrawal
    wanted = [table.c.subaccount_id == subaccount_id, *in_time(table.c.created_at_us, from_ms, to_ms)]
    if withdrawal_id is not None:
        wanted.append(table.c.withdrawal_id == withdrawal_id)
    if client_id is not None:
        wanted.append(table.c.client_id == client_id)
    return await read_page(history, table, wanted, (table.c.withdrawal_id,), page, withdrawal_from)
