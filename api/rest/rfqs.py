"""Requests for quotes and quotes over HTTP: ask, quote, accept, look, histories.   [S-7, W-2]"""

from __future__ import annotations

from api import contract
from api.codec import SIDES, STATUSES
from api.history.rfqs import read_quotes, read_rfq_fills, read_rfqs
from api.requests import market_of, order_id_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.state import Rfq


async def submit_rfq(call: Call) -> contract.RequestForQuote:
    outcome = await call.perform("rfqSubmit")
    return call.codec.rfq(outcome.reply)


async def refresh_rfq(call: Call) -> contract.RequestForQuote:
    """The request's time begins anew; the quotes so far end."""
    outcome = await call.perform("rfqRefresh")
    return call.codec.rfq(outcome.reply)


async def cancel_rfq(call: Call) -> contract.RequestForQuote:
    outcome = await call.perform("rfqCancel")
    return call.codec.rfq(outcome.reply)


async def submit_quote(call: Call) -> contract.Quote:
    """An immediate request may be filled by it: then its status says so."""
    market_id = 0
    if len(call.fields) == 1:
        asked = call.state.rfqs.get(order_id_of(call.fields[0].get("rfqId", "")))
        market_id = asked.view.market_id if asked is not None else 0
    outcome = await call.perform("quoteSubmit")
    return call.codec.quote(outcome.reply, market_id)


async def accept_quote(call: Call) -> contract.RequestForQuote:
    """The best quote fills the request; `New` again when its maker could not stand for it."""
    outcome = await call.perform("quoteAccept")
    return call.codec.rfq(outcome.reply)


async def get_rfqs(call: Call) -> list[contract.RfqWithQuotes]:
    """The subaccount's open requests with their quotes, and those of others that it has quoted, with its own quotes."""
    query: contract.RfqsQuery = call.query
    market_id = market_of(query.symbol, call.state).market_id if query.symbol is not None else None
    own = call.subaccount(query.subaccount_id).subaccount_id
    if query.deferred_settlement:
        return []
    return [
        _with_quotes(call, rfq, own)
        for rfq in call.state.rfqs.values()
        if market_id in (None, rfq.view.market_id)
        and query.rfq_id in (None, rfq.view.rfq_id)
        and (rfq.view.subaccount_id == own or any(quote.subaccount_id == own for quote in rfq.quotes.values()))
    ]


def _with_quotes(call: Call, rfq: Rfq, own: int) -> contract.RfqWithQuotes:
    view = rfq.view
    seen = [quote for quote in rfq.quotes.values() if own in (view.subaccount_id, quote.subaccount_id)]
    return contract.RfqWithQuotes(call.codec.rfq(view), [call.codec.quote(quote, view.market_id) for quote in seen])


async def rfq_history(call: Call) -> Answer:
    """Requests as they last stood, open ones included; none is settled later."""
    query: contract.RfqHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    if query.deferred_settlement:
        return paged([], page, 0)
    rows, total = await read_rfqs(
        call.node.history,
        call.key.subaccount_id,
        page,
        rfq_id=order_id_of(query.rfq_id) if query.rfq_id is not None else None,
        market_ids=call.market_ids(query.symbol, []),
        status=STATUSES[query.status] if query.status is not None else None,
        side=SIDES[query.side] if query.side is not None else None,
    )
    return paged([call.codec.history_rfq(row) for row in rows], page, total)


async def quote_history(call: Call) -> Answer:
    """A maker's quotes as they last stood."""
    query: contract.QuoteHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    if query.deferred_settlement:
        return paged([], page, 0)
    rows, total = await read_quotes(
        call.node.history,
        call.key.subaccount_id,
        page,
        quote_id=order_id_of(query.quote_id) if query.quote_id is not None else None,
        market_ids=call.market_ids(query.symbol, []),
        status=STATUSES[query.status] if query.status is not None else None,
    )
    return paged([call.codec.history_quote(*row) for row in rows], page, total)


async def rfq_fill_history(call: Call) -> Answer:
    """Fills of the subaccount's requests; all of them are users' own."""
    query: contract.RfqFillHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    if query.deferred_settlement or query.fill_type not in (None, "User"):
        return paged([], page, 0)
    rows, total = await read_rfq_fills(
        call.node.history,
        call.key.subaccount_id,
        page,
        as_maker=False,
        quote_id=order_id_of(query.quote_id) if query.quote_id is not None else None,
        market_ids=call.market_ids(query.symbol, []),
        side=SIDES[query.side] if query.side is not None else None,
    )
    return paged([call.codec.rfq_fill(row) for row in rows], page, total)


async def quote_fill_history(call: Call) -> Answer:
    """Fills of the subaccount's quotes, from the maker's side."""
    query: contract.QuoteFillHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    side = {"Bid": SIDES["Ask"], "Ask": SIDES["Bid"]}[query.side] if query.side is not None else None
    rows, total = await read_rfq_fills(
        call.node.history,
        call.key.subaccount_id,
        page,
        as_maker=True,
        quote_id=order_id_of(query.quote_id) if query.quote_id is not None else None,
        market_ids=call.market_ids(query.symbol, []),
        side=side,
    )
    return paged([call.codec.quote_fill(row) for row in rows], page, total)


ROUTES = [
    Route(
        method="POST",
        path="/api/v1/rfq",
        handler=submit_rfq,
        summary="Ask for quotes",
        tag="RFQ",
        instruction="rfqSubmit",
        body=contract.RequestForQuotePayload,
        answer=contract.RequestForQuote,
        changes=True,
    ),
    Route(
        method="POST",
        path="/api/v1/rfq/refresh",
        handler=refresh_rfq,
        summary="Begin a request's time anew",
        tag="RFQ",
        instruction="rfqRefresh",
        body=contract.RequestForQuoteRefreshPayload,
        answer=contract.RequestForQuote,
        changes=True,
        statuses=(404,),
    ),
    Route(
        method="POST",
        path="/api/v1/rfq/cancel",
        handler=cancel_rfq,
        summary="Cancel a request for quotes",
        tag="RFQ",
        instruction="rfqCancel",
        body=contract.RequestForQuoteCancelPayload,
        answer=contract.RequestForQuote,
        changes=True,
        statuses=(404,),
    ),
    Route(
        method="POST",
        path="/api/v1/rfq/quote",
        handler=submit_quote,
        summary="Quote for a request",
        tag="RFQ",
        instruction="quoteSubmit",
        body=contract.QuotePayload,
        answer=contract.Quote,
        changes=True,
        statuses=(404,),
    ),
    Route(
        method="POST",
        path="/api/v1/rfq/accept",
        handler=accept_quote,
        summary="Accept the best quote",
        tag="RFQ",
        instruction="quoteAccept",
        body=contract.QuoteAcceptPayload,
        answer=contract.RequestForQuote,
        changes=True,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/rfqs",
        handler=get_rfqs,
        summary="Open requests for quotes",
        tag="RFQ",
        instruction="rfqQuery",
        query=contract.RfqsQuery,
        answer=list[contract.RfqWithQuotes],
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/rfq",
        handler=rfq_history,
        summary="Requests for quotes, newest first",
        tag="History",
        instruction="rfqHistoryQueryAll",
        query=contract.RfqHistoryQuery,
        answer=list[contract.RequestForQuoteHistorical],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/quote",
        handler=quote_history,
        summary="Quotes, newest first",
        tag="History",
        instruction="quoteHistoryQueryAll",
        query=contract.QuoteHistoryQuery,
        answer=list[contract.QuoteHistorical],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/rfq/fill",
        handler=rfq_fill_history,
        summary="Fills of own requests, newest first",
        tag="History",
        instruction="rfqFillHistoryQueryAll",
        query=contract.RfqFillHistoryQuery,
        answer=list[contract.RequestForQuoteFillHistorical],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/quote/fill",
        handler=quote_fill_history,
        summary="Fills of own quotes, newest first",
        tag="History",
        instruction="quoteFillHistoryQueryAll",
        query=contract.QuoteFillHistoryQuery,
        answer=list[contract.QuoteFillHistorical],
        paged=True,
    ),
]
