// The status page: a live book, the last trades, the last block and the last epoch, through the public API only.

import { Book } from "./book.js";
import { draw } from "./chart.js";
import { grouped, padded, places, units } from "./decimals.js";

const LEVELS = matchMedia("(max-width: 640px)").matches ? 8 : 12;
const TRADES = LEVELS * 2 + 1;
const CANDLES = 120;
const MINUTE = 60;

const $ = (id) => document.getElementById(id);
const state = {
  market: null,
  book: null,
  trades: [],
  candles: new Map(),
  ticker: null,
  mark: null,
  openInterest: null,
  socket: null,
  clockSkewMs: 0,
  dirty: false,
  block: null,
  epoch: null,
};

const markets = (await get("/api/v1/markets")).filter((market) => market.orderBookState !== "Closed");
state.clockSkewMs = Number(await get("/api/v1/time")) - Date.now();
buildTabs();
listCommands();
buildRows();
if (markets.length) await choose(named(location.hash.slice(1)) ?? markets[0]);
connect();
repeat(pollHealth, 5_000);
repeat(pollBlock, 2_000);
repeat(pollEpoch, 10_000);
repeat(pollPools, 5_000);
repeat(async () => { state.dirty = true; }, 1_000);
new ResizeObserver(() => { state.dirty = true; }).observe($("chart"));
requestAnimationFrame(frame);

// ---- the market on show

function named(symbol) {
  return markets.find((market) => market.symbol === symbol);
}

async function choose(market) {
  const before = state.market;
  state.market = market;
  state.priceDecimals = places(market.filters.price.tickSize);
  state.sizeDecimals = places(market.filters.quantity.stepSize);
  state.trades = [];
  state.candles = new Map();
  state.ticker = state.mark = state.openInterest = null;
  for (const tab of $("markets").children) {
    tab.setAttribute("aria-selected", String(tab.dataset.symbol === market.symbol));
    if (tab.dataset.symbol === market.symbol) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  history.replaceState(null, "", `#${market.symbol}`);
  listCommands();
  if (before) send("UNSUBSCRIBE", streams(before));
  await load();
}

function streams({ symbol, marketType }) {
  const ofAll = [`depth.200ms.${symbol}`, `trade.${symbol}`, `ticker.${symbol}`, `kline.1m.${symbol}`];
  return marketType === "PERP" ? [...ofAll, `markPrice.${symbol}`, `openInterest.${symbol}`] : ofAll;
}

/** `SOL_USDC_PERP` as people read it. */
function title({ symbol }) {
  return symbol.replace(/_PERP$/, " perp").replace("_", " / ");
}

/** Subscribe first, then take the snapshots: nothing falls between. */
async function load() {
  const market = state.market;
  const symbol = encodeURIComponent(market.symbol);
  const book = new Book(state.priceDecimals, state.sizeDecimals);
  state.book = book;
  send("SUBSCRIBE", streams(market));
  const since = Math.floor(now() / 1000) - CANDLES * MINUTE;
  const [depth, trades, ticker, klines] = await Promise.all([
    get(`/api/v1/depth?symbol=${symbol}&limit=1000`),
    get(`/api/v1/trades?symbol=${symbol}&limit=${TRADES}`),
    get(`/api/v1/ticker?symbol=${symbol}`),
    get(`/api/v1/klines?symbol=${symbol}&interval=1m&startTime=${since}`),
  ]);
  // A later load has taken over.
  if (book !== state.book) return;
  if (!book.load(depth)) return load();
  addTrades(trades.map(tradeOfRest));
  if (ticker && !state.ticker) state.ticker = tickerOfRest(ticker);
  for (const kline of klines) if (kline.open) addCandle(kline.start, kline.open, kline.high, kline.low, kline.close);
  state.dirty = true;
}

// ---- the stream

function connect(patience = 500) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`);
  socket.addEventListener("open", () => {
    patience = 500;
    state.socket = socket;
    pollHealth();
    if (state.market) load();
  });
  socket.addEventListener("message", (event) => take(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    state.socket = null;
    pollHealth();
    setTimeout(() => connect(Math.min(patience * 2, 10_000)), patience);
  });
}

function send(method, params) {
  if (state.socket?.readyState === WebSocket.OPEN) state.socket.send(JSON.stringify({ method, params }));
}

function take(message) {
  const data = message.data;
  if (!data || data.s !== state.market.symbol) return;
  if (data.e === "depth" && !state.book.apply(data)) load();
  if (data.e === "trade") {
    addTrades([{ id: data.t, price: data.p, size: data.q, at: data.T / 1000, down: data.m }]);
  }
  if (data.e === "ticker") {
    state.ticker = { first: data.o, last: data.c, high: data.h, low: data.l, base: data.v, quote: data.V, trades: data.n };
  }
  if (data.e === "markPrice") {
    // Both in exchange time, which a devnet may have moved far from the wall's.
    state.mark = { mark: data.p, index: data.i, rate: data.f, left: data.n - data.T / 1000 };
  }
  if (data.e === "openInterest") state.openInterest = data.o;
  if (data.e === "kline") addCandle(data.t, data.o, data.h, data.l, data.c);
  state.dirty = true;
}

// ---- what the answers say

function pad(price) {
  return padded(units(price, state.priceDecimals), state.priceDecimals);
}

function padSize(size) {
  return padded(units(size, state.sizeDecimals), state.sizeDecimals);
}

/** Exchange time in ms: on a devnet it may differ from the wall's. */
function now() {
  return Date.now() + state.clockSkewMs;
}

/** ms since 1970 of the contract's naive UTC times. */
function instant(naive) {
  return Date.parse(`${naive.replace(" ", "T").replace(/Z$/, "")}Z`);
}

function tradeOfRest(row) {
  return { id: row.id, price: pad(row.price), size: padSize(row.quantity), at: row.timestamp, down: row.isBuyerMaker };
}

/** Newest first, each once, whether it came by the stream or by the snapshot. */
function addTrades(trades) {
  const byId = new Map([...state.trades, ...trades].map((trade) => [trade.id, trade]));
  state.trades = [...byId.values()].sort((a, b) => b.id - a.id).slice(0, TRADES);
}

function tickerOfRest(row) {
  return {
    first: pad(row.firstPrice),
    last: pad(row.lastPrice),
    high: pad(row.high),
    low: pad(row.low),
    base: row.volume,
    quote: row.quoteVolume,
    trades: Number(row.trades),
  };
}

function addCandle(start, open, high, low, close) {
  const at = instant(start) / 1000;
  // For drawing only: a pixel is coarser than a float.
  state.candles.set(at, { start: at, open: Number(open), high: Number(high), low: Number(low), close: Number(close) });
}

// ---- drawing

function frame() {
  if (state.dirty && state.market && !document.hidden) {
    state.dirty = false;
    drawBook();
    drawTrades();
    drawTicker();
    drawPerpetual();
    drawChart();
    drawAges();
  }
  requestAnimationFrame(frame);
}

function buildRows() {
  for (const side of ["asks", "bids"]) {
    for (let row = 0; row < LEVELS; row++) $(side).append(cells(document.createElement("tr")));
  }
  for (let row = 0; row < TRADES; row++) $("trades").append(cells(document.createElement("tr")));
}

function cells(row) {
  for (let cell = 0; cell < 3; cell++) row.append(document.createElement("td"));
  return row;
}

function drawBook() {
  const asks = state.book.top("asks", LEVELS);
  const bids = state.book.top("bids", LEVELS);
  const most = [asks.at(-1)?.total ?? 0n, bids.at(-1)?.total ?? 0n].reduce((a, b) => (a > b ? a : b), 1n);
  const fill = (row, level, side) => {
    row.className = level ? side : "blank";
    const share = level ? Number((level.total * 1000n) / most) / 10 : 0;
    row.style.setProperty("--share", `${share}%`);
    const texts = level
      ? [
          padded(level.price, state.priceDecimals),
          padded(level.size, state.sizeDecimals),
          padded(level.total, state.sizeDecimals),
        ]
      : ["", "", ""];
    texts.forEach((text, column) => say(row.cells[column], grouped(text)));
  };
  [...$("asks").rows].forEach((row, place) => fill(row, asks[LEVELS - 1 - place], "ask"));
  [...$("bids").rows].forEach((row, place) => fill(row, bids[place], "bid"));
  say($("book-id"), state.book.lastId === null ? "" : `update ${grouped(String(state.book.lastId))}`);
  const gap = asks.length && bids.length ? asks[0].price - bids[0].price : null;
  const spread = gap === null ? "" : `spread ${padded(gap, state.priceDecimals)}`;
  say($("spread"), spread || (asks.length || bids.length ? "one side is empty" : "waiting for orders"));
}

function drawTrades() {
  const rows = $("trades").rows;
  state.trades.slice(0, TRADES).forEach((trade, place) => {
    const row = rows[place];
    row.className = trade.down ? "down" : "up";
    say(row.cells[0], `${trade.down ? "▾" : "▴"} ${grouped(trade.price)}`);
    say(row.cells[1], grouped(trade.size));
    say(row.cells[2], new Date(trade.at).toLocaleTimeString([], { hour12: false }));
  });
  for (let place = state.trades.length; place < rows.length; place++) {
    rows[place].className = "";
    for (const cell of rows[place].cells) say(cell, "");
  }
  $("trades-empty").hidden = state.trades.length > 0;
  say($("trade-id"), state.trades.length ? `no. ${grouped(String(state.trades[0].id))}` : "");
}

function drawTicker() {
  const { ticker, market } = state;
  const last = state.trades[0]?.price ?? ticker?.last;
  say($("symbol"), title(market));
  say($("last"), last ? grouped(last) : "–");
  const change = ticker && last ? changeOf(ticker.first, last) : null;
  say($("change"), change ? `${change.sign} ${change.percent} %` : "");
  $("change").className = `number ${change?.name ?? ""}`;
  say($("high"), ticker ? grouped(ticker.high) : "–");
  say($("low"), ticker ? grouped(ticker.low) : "–");
  say($("volume"), ticker ? `${grouped(ticker.base)} ${market.baseSymbol}` : "–");
  say($("turnover"), ticker ? `${grouped(ticker.quote)} ${market.quoteSymbol}` : "–");
  say($("count"), ticker ? grouped(String(ticker.trades)) : "–");
  document.title = last ? `${grouped(last)} ${market.symbol} – Satchel` : "Satchel – status";
}

/** What only a perpetual has: its mark beside the index, what the running interval costs longs, what is open. */
function drawPerpetual() {
  const { mark, market, openInterest } = state;
  const isPerpetual = market.marketType === "PERP";
  for (const line of document.querySelectorAll(".perpetual")) line.hidden = !isPerpetual;
  if (!isPerpetual) return;
  say($("mark"), mark ? grouped(mark.mark) : "–");
  say($("index"), mark ? grouped(mark.index) : "–");
  say($("funding"), mark ? `${percent(mark.rate)} % in ${minutes(mark.left)}` : "–");
  say($("open-interest"), openInterest ? `${grouped(openInterest)} ${market.baseSymbol}` : "–");
}

/** A rate in 1e-9 as percent, exact. */
function percent(rate) {
  return padded(units(rate, 9), 7);
}

function minutes(ms) {
  return `${Math.max(0, Math.ceil(ms / 60_000))} min`;
}

/** The change in percent with two decimals, toward zero. */
function changeOf(first, last) {
  const from = units(first, state.priceDecimals);
  const by = units(last, state.priceDecimals) - from;
  const percent = padded(((by < 0n ? -by : by) * 10_000n) / from, 2);
  if (by === 0n) return { sign: "±", percent, name: "" };
  return by > 0n ? { sign: "▴ +", percent, name: "up" } : { sign: "▾ −", percent, name: "down" };
}

function drawChart() {
  const end = Math.floor(now() / 1000 / MINUTE) * MINUTE + MINUTE;
  const candles = [...state.candles.values()]
    .filter((candle) => candle.start >= end - CANDLES * MINUTE)
    .sort((a, b) => a.start - b.start);
  $("chart-empty").hidden = candles.length > 0;
  draw($("chart"), candles, end, CANDLES, MINUTE, state.priceDecimals);
}

function drawAges() {
  if (state.block) say($("block-age"), ago(instant(state.block.at)));
  if (state.epoch) say($("epoch-age"), ago(Number(state.epoch.atUs) / 1000));
}

function ago(at) {
  const seconds = Math.max(0, Math.round((now() - at) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3_600)} h ago`;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ---- what is asked again and again

async function pollHealth() {
  const health = $("health");
  try {
    const answer = await fetch("/health/ready");
    const ready = answer.ok && state.socket !== null;
    health.className = `pill push ${ready ? "good" : answer.ok ? "" : "bad"}`;
    say(health, ready ? "ready, live" : answer.ok ? "connecting…" : "not ready");
  } catch {
    health.className = "pill push bad";
    say(health, "no answer");
  }
}

async function pollBlock() {
  const [block] = await get("/satchel/v1/blocks?limit=1");
  state.block = block;
  say($("block-height"), grouped(String(block.height)));
  say($("block-commands"), grouped(String(block.commandCount)));
  say($("block-journal"), grouped(String(block.firstJournal + block.journalCount - 1)));
  say($("block-hash"), block.hash);
  say($("block-key"), block.publicKey);
}

async function pollEpoch() {
  const rows = await get("/satchel/v1/epochs?limit=1");
  $("epoch-none").hidden = rows.length > 0;
  $("epoch").hidden = rows.length === 0;
  if (!rows.length || rows[0].epoch === state.epoch?.epoch) return;
  const epoch = await get("/satchel/v1/epochs/latest");
  state.epoch = epoch;
  say($("epoch-number"), grouped(String(epoch.epoch)));
  say($("epoch-accounts"), grouped(String(epoch.accounts)));
  say($("epoch-block"), grouped(String(epoch.blockHeight)));
  say($("epoch-root"), epoch.liabilitiesRoot);
  const lent = epoch.pools.filter((pool) => BigInt(pool.lent) > 0n);
  $("epoch-loans-line").hidden = lent.length === 0;
  say($("epoch-loans"), lent.map((pool) => `${pool.asset} ${part(BigInt(pool.borrowed), BigInt(pool.lent))} %`).join(", "));
}

/** Pools that somebody provides: one row each, exactly as the API has them. */
async function pollPools() {
  const pools = (await get("/satchel/v1/pools")).filter((pool) => pool.units !== "0");
  $("pools-card").hidden = pools.length === 0;
  say($("pools-note"), pools.length ? `price in the pool's asset per ${pools[0].nativeSymbol}` : "");
  const rows = pools.map((pool) => [
    pool.state === "Open" ? pool.symbol : `${pool.symbol}, ${pool.state}`,
    grouped(pool.price),
    `${grouped(pool.external.depth)} ${pool.symbol}`,
    `${grouped(pool.native.depth)} ${pool.nativeSymbol}`,
    pool.health,
    `${percentOf(pool.interestRate)} %`,
    grouped(String(pool.positions)),
    `${grouped(pool.external.fund)} ${pool.symbol}, ${grouped(pool.native.fund)} ${pool.nativeSymbol}`,
  ]);
  const body = $("pools");
  while (body.rows.length > rows.length) body.deleteRow(-1);
  while (body.rows.length < rows.length) {
    const row = body.insertRow();
    for (const _ of rows[0]) row.insertCell();
  }
  rows.forEach((texts, place) => texts.forEach((text, column) => say(body.rows[place].cells[column], text)));
}

/** A fraction with up to 18 decimals as percent, exact: "0.00001" → "0.001". */
function percentOf(fraction) {
  const text = padded(units(fraction, 18), 16);
  return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

/** 5n, 9n → "55.55": percent, rounded down. */
function part(some, all) {
  return padded((some * 10_000n) / all, 2);
}

function repeat(task, every) {
  const run = async () => {
    if (!document.hidden) await task().catch(() => {});
    setTimeout(run, every);
  };
  run();
}

async function get(path) {
  const answer = await fetch(path);
  if (answer.status === 204) return null;
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${path}: ${body.message}`);
  return body;
}

// ---- the rest of the page

function buildTabs() {
  for (const market of markets) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.dataset.symbol = market.symbol;
    tab.textContent = title(market);
    tab.addEventListener("click", () => choose(market));
    $("markets").append(tab);
  }
}

function listCommands() {
  for (const item of $("commands").children) {
    const code = item.querySelector("code");
    code.dataset.template ??= code.textContent;
    code.textContent = code.dataset.template
      .replace("ORIGIN", location.origin)
      .replace("SYMBOL", state.market?.symbol ?? "SOL_USDC");
    if (item.querySelector("button") || !navigator.clipboard) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1_500);
    });
    item.append(button);
  }
}
