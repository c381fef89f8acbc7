"""What the contract names and this exchange does not have yet: 400 NOT_IMPLEMENTED instead of a bare 404.   [W-4]"""

from __future__ import annotations

from typing import Any

from api.errors import not_implemented
from api.rest.route import Call, Route

_PATHS = """
GET    /api/v1/prediction
GET    /api/v1/prediction/tags
GET    /api/v1/market-sessions
GET    /api/v1/vaults
POST   /api/v1/vault/mint
POST   /api/v1/vault/redeem
DELETE /api/v1/vault/redeem
GET    /api/v1/vault/redeems/pending
GET    /api/v1/vault/nav
GET    /api/v1/vaults/history
GET    /wapi/v1/capital/withdrawals/delay
POST   /wapi/v1/capital/withdrawals/delay
PATCH  /wapi/v1/capital/withdrawals/delay
"""


async def answer(_call: Call) -> Any:
    raise not_implemented("This route")


ROUTES = [
    Route(
        method=method,
        path=path,
        handler=answer,
        summary="Not available yet",
        tag="Later",
        query=None,
    )
    for method, path in (line.split() for line in _PATHS.strip().splitlines())
]
