"""The static pages: status at `/`, reference at `/docs`; clients of the API like any other, served offline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from api.resources import web_dir

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""No script, style or connection but our own."""

Connect = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_pages(app: web.Application, connect: Connect) -> None:
    """`/` is the status page, and the WebSocket when the request asks to upgrade.   [W-6, W-8]"""
    folder = web_dir()

    async def root(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await connect(request)
        return web.FileResponse(folder / "index.html", headers=SECURITY_HEADERS)

    async def docs(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(folder / "docs.html", headers=SECURITY_HEADERS)

    app.router.add_get("/", root)
    app.router.add_get("/docs", docs)
    app.router.add_get("/ws", connect)
    app.router.add_static("/web", folder)
