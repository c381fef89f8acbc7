"""The static pages in a real browser, against a real node: what they show is what the API says, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tools.client import Client
from tools.node_process import NodeProcess

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(240)]

ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000
DESKTOP, PHONE = (1280, 900), (390, 844)


class Exchange:
    """A devnet node with two customers."""

    def __init__(self, node: NodeProcess, session: aiohttp.ClientSession) -> None:
        self.url = node.url
        self.anybody = Client(session, node.url)
        self.maker = Client(session, node.url, Ed25519PrivateKey.generate())
        self.taker = Client(session, node.url, Ed25519PrivateKey.generate())

    async def open_accounts(self) -> None:
        for client in (self.maker, self.taker):
            owner = await self.anybody.tell("/dev/v1/keys", {"publicKey": client.public_key})
            for symbol, quantity in (("SOL", "1000"), ("USDC", "100000"), ("BTC", "10")):
                await self.anybody.tell("/dev/v1/faucet", {**owner, "symbol": symbol, "quantity": quantity})

    async def place(self, client: Client, side: str, price: str, quantity: str, symbol: str = "SOL_USDC") -> Any:
        return await client.request(
            "orderExecute", symbol=symbol, side=side, orderType="Limit", price=price, quantity=quantity
        )

    async def fill_book(self, symbol: str = "SOL_USDC") -> None:
        for level in range(3):
            await self.place(self.maker, "Bid", str(100 - level), f"{level + 1}.5", symbol)
            await self.place(self.maker, "Ask", str(101 + level), f"{level + 1}.25", symbol)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    node = NodeProcess(tmp_path_factory.mktemp("pages"))
    await node.start()
    async with aiohttp.ClientSession() as session:
        exchange = Exchange(node, session)
        await exchange.open_accounts()
        await exchange.fill_book()
        yield exchange
    await node.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(chromium_path: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS, timeout=120_000)
        yield browser
        await browser.close()


class Visit:
    """One page on show, and what went wrong or left the exchange meanwhile."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        page.on("request", self._watch)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _watch(self, request: Request) -> None:
        if not request.url.startswith(self.url):
            self.problems.append(f"foreign request: {request.url}")


@pytest_asyncio.fixture(loop_scope="module", params=[DESKTOP, PHONE], ids=["desktop", "phone"])
async def visit(request: pytest.FixtureRequest, browser: Browser, exchange: Exchange) -> AsyncIterator[Visit]:
    width, height = request.param
    context = await browser.new_context(viewport={"width": width, "height": height}, base_url=exchange.url)
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(await context.new_page(), exchange.url)
    yield visit
    overflow = await visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    await context.close()

    assert visit.problems == []
    assert overflow == 0


async def rows_of(page: Page, table: str) -> list[list[str]]:
    """The rows that are not blank."""
    rows: list[list[str]] = await page.eval_on_selector_all(
        f"#{table} tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return [row for row in rows if any(row)]


async def test_the_status_page_shows_the_book_and_follows_it(visit: Visit, exchange: Exchange) -> None:
    page = visit.page
    await page.goto("/")
    await expect(page.locator("#health")).to_have_text("ready, live", timeout=PATIENCE_MS)
    await expect(page.locator("#spread")).to_have_text("spread 1.00", timeout=PATIENCE_MS)
    assert await rows_of(page, "bids") == [
        ["100.00", "1.50", "1.50"], ["99.00", "2.50", "4.00"], ["98.00", "3.50", "7.50"],
    ]
    assert (await rows_of(page, "asks"))[-1] == ["101.00", "1.25", "1.25"]

    placed = await exchange.place(exchange.maker, "Bid", "100.5", "0.75")
    await expect(page.locator("#bids tr").first).to_contain_text("100.50", timeout=PATIENCE_MS)
    await expect(page.locator("#spread")).to_have_text("spread 0.50", timeout=PATIENCE_MS)

    await exchange.maker.request("orderCancel", symbol="SOL_USDC", orderId=placed["id"])
    await expect(page.locator("#spread")).to_have_text("spread 1.00", timeout=PATIENCE_MS)
    assert len(await rows_of(page, "bids")) == 3


async def test_trades_appear_with_price_size_and_direction(visit: Visit, exchange: Exchange) -> None:
    page = visit.page
    await page.goto("/")
    await expect(page.locator("#health")).to_have_text("ready, live", timeout=PATIENCE_MS)

    await exchange.place(exchange.maker, "Ask", "100.75", "0.1")
    await exchange.place(exchange.taker, "Bid", "100.75", "0.1")

    await expect(page.locator("#trades tr").first).to_contain_text("▴ 100.75", timeout=PATIENCE_MS)
    await expect(page.locator("#last")).to_have_text("100.75", timeout=PATIENCE_MS)
    await expect(page.locator("#count")).not_to_have_text("–", timeout=PATIENCE_MS)
    await expect(page.locator("#chart rect").first).to_be_attached(timeout=PATIENCE_MS)
    trades = await exchange.anybody.ask("/api/v1/trades", symbol="SOL_USDC", limit=15)
    shown = await rows_of(page, "trades")
    assert [(row[0][2:], row[1]) for row in shown] == [("100.75", "0.10")] * len(trades)
    ticker = await exchange.anybody.ask("/api/v1/ticker", symbol="SOL_USDC")
    await expect(page.locator("#count")).to_have_text(ticker["trades"], timeout=PATIENCE_MS)


async def test_each_trade_is_shown_once_however_it_came(visit: Visit, exchange: Exchange) -> None:
    page = visit.page
    await page.goto("/")
    await expect(page.locator("#health")).to_have_text("ready, live", timeout=PATIENCE_MS)
    for number in range(4):
        price = f"100.{51 + number}"
        await exchange.place(exchange.maker, "Ask", price, "0.1")
        await exchange.place(exchange.taker, "Bid", price, "0.1")

    await expect(page.locator("#trades tr").first).to_contain_text("▴ 100.54", timeout=PATIENCE_MS)
    trades = await exchange.anybody.ask("/api/v1/trades", symbol="SOL_USDC", limit=15)
    shown = [row[0][2:] for row in await rows_of(page, "trades")]
    assert shown[:15] == [f"{float(trade['price']):.2f}" for trade in trades]


async def test_the_last_block_and_epoch_are_those_of_the_log(visit: Visit, exchange: Exchange) -> None:
    header = await exchange.anybody.tell("/dev/v1/por", {})
    page = visit.page
    await page.goto("/")

    await expect(page.locator("#epoch-root")).to_have_text(header["liabilitiesRoot"], timeout=PATIENCE_MS)
    await expect(page.locator("#epoch-number")).to_have_text(str(header["epoch"]))
    (block,) = await exchange.anybody.ask("/satchel/v1/blocks", limit=1)
    await expect(page.locator("#block-hash")).to_have_text(block["hash"], timeout=PATIENCE_MS)
    await expect(page.locator("#block-key")).to_have_text(block["publicKey"])


async def test_liquidity_pools_are_shown_once_somebody_provides_one(visit: Visit, exchange: Exchange) -> None:
    """X-1, X-7: as the API has them; figures as exact as they are."""
    page = visit.page
    await page.goto("/")
    await expect(page.locator("#health")).to_have_text("ready, live", timeout=PATIENCE_MS)
    provider = Client(exchange.anybody.session, exchange.url, Ed25519PrivateKey.generate())
    owner = await exchange.anybody.tell("/dev/v1/keys", {"publicKey": provider.public_key})
    for symbol, quantity in (("ROWAN", "30000"), ("USDC", "10000")):
        await exchange.anybody.tell("/dev/v1/faucet", {**owner, "symbol": symbol, "quantity": quantity})
    sides = {"nativeQuantity": "30000", "externalQuantity": "10000"}
    await provider.request("poolLiquidityAdd", symbol="USDC", **sides)

    pool = await exchange.anybody.ask("/satchel/v1/pools/pool", symbol="USDC")
    await expect(page.locator("#pools tr")).to_have_count(1, timeout=PATIENCE_MS)
    depth = f"{int(pool['external']['depth']):,} USDC"
    await expect(page.locator("#pools tr td").nth(2)).to_have_text(depth, timeout=PATIENCE_MS)
    (row,) = await rows_of(page, "pools")
    assert row[:2] == ["USDC", pool["price"]] and row[4] == pool["health"] and row[6] == "0"
    assert row[3].replace(",", "") == f"{pool['native']['depth']} ROWAN"
    assert Decimal(row[5].removesuffix(" %")) == Decimal(pool["interestRate"]) * 100


async def test_another_market_is_a_click_away(visit: Visit, exchange: Exchange) -> None:
    await exchange.place(exchange.maker, "Bid", "50000.1", "0.0123", "BTC_USDC")
    page = visit.page
    await page.goto("/")
    await page.get_by_role("tab", name="BTC / USDC", exact=True).click()

    await expect(page.locator("#symbol")).to_have_text("BTC / USDC", timeout=PATIENCE_MS)
    await expect(page.locator("#bids tr").first).to_contain_text("50,000.1", timeout=PATIENCE_MS)
    await expect(page.locator("#commands")).to_contain_text("symbol=BTC_USDC")
    await exchange.place(exchange.maker, "Ask", "50001.1", "0.5", "BTC_USDC")
    await expect(page.locator("#spread")).to_contain_text("spread ", timeout=PATIENCE_MS)
    await expect(page.locator("#mark")).to_be_hidden()

    await page.reload()
    await expect(page.locator("#symbol")).to_have_text("BTC / USDC", timeout=PATIENCE_MS)
    await exchange.maker.request("orderCancelAll", symbol="BTC_USDC")
    await expect(page.locator("#spread")).to_have_text("waiting for orders", timeout=PATIENCE_MS)


async def test_a_perpetual_shows_its_mark_funding_and_open_interest(visit: Visit, exchange: Exchange) -> None:
    """W-6, P-22"""
    await exchange.anybody.tell("/dev/v1/prices", {"USDC": "1", "ETH": "2500"})
    page = visit.page
    await page.goto("/#ETH_USDC_PERP")

    await expect(page.locator("#symbol")).to_have_text("ETH / USDC perp", timeout=PATIENCE_MS)
    await expect(page.locator("#mark")).to_have_text("2,500", timeout=PATIENCE_MS)
    await expect(page.locator("#index")).to_have_text("2,500")
    funding = page.locator("#funding")
    await expect(funding).to_contain_text("% in ")
    await exchange.anybody.tell("/dev/v1/clock", {"advanceMs": 7_200_000})
    await exchange.anybody.tell("/dev/v1/prices", {"SOL": "101"})
    await page.wait_for_timeout(1_500)
    assert int(re.findall(r"in (\d+) min", await funding.inner_text())[0]) <= 60, "time left is exchange time"
    await expect(page.locator("#open-interest")).to_have_text("0.000 ETH", timeout=PATIENCE_MS)


async def test_the_theme_is_chosen_once(visit: Visit) -> None:
    page = visit.page
    await page.goto("/")
    before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.locator("#theme").click()
    chosen = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.goto("/docs")

    assert chosen != before
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == chosen
    await expect(page.locator(".route").first).to_be_attached(timeout=PATIENCE_MS)


async def test_the_reference_has_every_route_of_the_document(visit: Visit, exchange: Exchange) -> None:
    document = await exchange.anybody.ask("/openapi.json")
    expected = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }
    page = visit.page
    await page.goto("/docs")
    await expect(page.locator(".route").first).to_be_attached(timeout=PATIENCE_MS)

    shown = await page.eval_on_selector_all("#contents .links a", "links => links.map(link => link.title)")
    articles = await page.locator(".route").count()

    assert set(shown) == expected
    assert articles == len(shown) == len(expected)


async def test_every_schema_opens_to_its_fields(visit: Visit) -> None:
    page = visit.page
    await page.goto("/docs")
    await expect(page.locator(".route").first).to_be_attached(timeout=PATIENCE_MS)

    opened = await page.evaluate(
        """async () => {
            let opened = 0;
            for (let round = 0; round < 8; round++) {
                const closed = [...document.querySelectorAll("details:not([open])")];
                if (!closed.length) return opened;
                for (const details of closed) { details.open = true; opened++; }
                await new Promise(done => setTimeout(done, 200));
            }
            return -1;
        }"""
    )

    assert opened > 50
    assert await page.locator("details[open] > :not(summary)").count() >= opened


async def test_the_filter_finds_routes_by_any_word(visit: Visit) -> None:
    page = visit.page
    await page.goto("/docs")
    await expect(page.locator(".route").first).to_be_attached(timeout=PATIENCE_MS)

    await page.locator("#filter").fill("get klines")

    visible = page.locator("#contents .links a:visible")
    await expect(visible).to_have_count(1)
    assert await visible.get_attribute("title") == "GET /api/v1/klines"


async def test_the_curl_line_of_a_public_route_works(visit: Visit, exchange: Exchange) -> None:
    page = visit.page
    await page.goto("/docs#get-api-v1-klines")
    route = page.locator("#get-api-v1-klines")
    await expect(route).to_be_attached(timeout=PATIENCE_MS)
    line = await route.locator("pre").first.text_content()

    found = re.fullmatch(r"curl -s '(http[^']+)'", line or "")

    assert found is not None, line
    async with aiohttp.ClientSession() as session, session.get(found[1]) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_signed_route_says_how_it_is_signed(visit: Visit) -> None:
    page = visit.page
    await page.goto("/docs")
    route = page.locator("#post-api-v1-order")
    await expect(route).to_contain_text("signed: orderExecute", timeout=PATIENCE_MS)

    texts = await route.locator("pre").all_text_contents()

    assert "-H 'X-Signature: …'" in texts[0]
    body = json.loads(re.search(r"-d '(.*)'", texts[0])[1])  # type: ignore[index]
    assert {"symbol", "side", "orderType", "price", "quantity"} <= set(body)
    assert texts[1].startswith("satchel sign orderExecute symbol=SOL_USDC ")


async def test_the_contract_itself_can_be_drawn(visit: Visit, shared_dir: Path) -> None:
    contract = (shared_dir / "spec" / "wire-openapi.json").read_text()
    page = visit.page
    await page.route("**/openapi.json", lambda route: route.fulfill(body=contract, content_type="application/json"))
    await page.goto("/docs")
    await expect(page.locator(".route").first).to_be_attached(timeout=PATIENCE_MS)

    operations = sum(
        method in ("get", "post", "put", "patch", "delete")
        for item in json.loads(contract)["paths"].values()
        for method in item
    )
    assert await page.locator(".route").count() == operations


async def test_a_book_notices_that_a_change_is_missing(visit: Visit) -> None:
    await visit.page.goto("/")
    outcome = await visit.page.evaluate(
        """async () => {
            const { Book } = await import("/web/book.js");
            const book = new Book(2, 2);
            const change = (U, u, b, a = []) => ({ U, u, b, a });
            const early = book.apply(change(5, 6, [["1.00", "9.00"]])) && book.apply(change(7, 8, [["2.00", "1.00"]]));
            const loaded = book.load({ bids: [["1", "3"]], asks: [["4.5", "1"]], lastUpdateId: "6" });
            const top = book.top("bids", 5).map(({ price, size, total }) => [price, size, total].map(String));
            const old = book.apply(change(6, 8, [["1.00", "7.00"]]));
            const next = book.apply(change(9, 9, [["2.00", "0.00"]], [["4.50", "2.00"]]));
            const gap = book.apply(change(11, 12, []));
            return { early, loaded, top, old, next, gap, bids: book.bids.size, ask: String(book.asks.get(450n)) };
        }"""
    )

    assert outcome == {
        "early": True,
        "loaded": True,
        "top": [["200", "100", "100"], ["100", "300", "400"]],
        "old": True,
        "next": True,
        "gap": False,
        "bids": 1,
        "ask": "200",
    }


async def test_pages_may_load_nothing_but_our_own(exchange: Exchange) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/docs"):
            async with session.get(exchange.url + path) as answer:
                text = await answer.text()
                policy = answer.headers["Content-Security-Policy"]

            assert answer.status == 200
            assert policy.startswith("default-src 'self'")
            assert "unsafe" not in policy
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", text)


async def test_the_last_epoch_says_how_much_of_what_is_lent_is_borrowed(browser: Browser, tmp_path: Path) -> None:
    """On an exchange of its own: once something is lent, time makes blocks.   [R-6]"""
    node = NodeProcess(tmp_path / "node")
    await node.start()
    try:
        async with aiohttp.ClientSession() as session:
            exchange = Exchange(node, session)
            await exchange.open_accounts()
            await exchange.anybody.tell("/dev/v1/prices", {"SOL": "100"})
            for client, side, quantity in ((exchange.maker, "Lend", "10"), (exchange.taker, "Borrow", "2.5")):
                await client.request(
                    "borrowLendExecute", "/api/v1/borrowLend", "POST", symbol="SOL", side=side, quantity=quantity
                )
            await exchange.anybody.tell("/dev/v1/por", {})
        page = await browser.new_page(base_url=node.url)
        await page.goto("/")
        await expect(page.locator("#epoch-loans")).to_have_text("SOL 25.00 %", timeout=PATIENCE_MS)
        await page.close()
    finally:
        await node.stop()
