"""Whether the process answers, and whether the exchange takes commands: for who watches over it.   [W-7]"""

from __future__ import annotations

from api.rest.route import Answer, Call, Route


async def get_live(_call: Call) -> dict[str, str]:
    return {"status": "alive"}


async def get_ready(call: Call) -> Answer:
    """503 while the exchange is not taking commands."""
    if call.node.is_ready():
        return Answer({"status": "ready"})
    return Answer({"status": "stopped"}, status=503)


ROUTES = [
    Route(
        method="GET",
        path="/health/live",
        handler=get_live,
        summary="The process answers",
        tag="Operations",
        answer=dict[str, str],
    ),
    Route(
        method="GET",
        path="/health/ready",
        handler=get_ready,
        summary="The exchange takes commands",
        tag="Operations",
        answer=dict[str, str],
        statuses=(503,),
    ),
]
