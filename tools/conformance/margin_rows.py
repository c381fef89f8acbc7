"""Rows of the margin module's own tests: opens and closes with numbers, tables that tell what is refused.   [X-15]

Those tables leave out the pools that their tests made. What they do say is put before the engine: which assets, who
asks, who has funds, whether there is a pool and a position. Where they end well without numbers ours must not refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from engine import pool_positions
from engine import pools as engine_pools
from engine.formulas import pools
from engine.parameters import DEC, MAX_DEC, PoolState
from engine.rejections import Rejection
from tools.conformance import engine_run
from tools.conformance.engine_run import Run
from tools.conformance.image import FUND, MODULE, NATIVE, Image, Side, Terms, read_pool
from tools.conformance.vectors import (
    MATCHED,
    Row,
    Verdict,
    atoms,
    compared,
    dec,
    differing,
    error_of,
    explained,
    judged,
    shown,
)

DEFAULTS = Terms(
    leverage_max=2 * DEC,
    rate_min=5 * DEC // 1_000,
    rate_max=3 * DEC,
    rate_increase=DEC // 10,
    rate_decrease=DEC // 10,
    gain_factor=DEC,
    epoch_length=1,
    open_threshold=DEC // 10,
    removal_threshold=DEC // 10,
    safety_factor=105 * DEC // 100,
    interest_fund_share=DEC // 10,
    close_fund_share=DEC // 10,
    pays_each_epoch=True,
    max_positions=10_000,
    takes_native_collateral=True,
    fee_rate=3 * DEC // 1_000,
    running_rate=0,
)
"""The original's own, for what a row does not say."""
SIGNER = "sif1signer"
_ADDRESS = re.compile(r"sif1[02-9ac-hj-np-z]{38}")
_DEPTH = 10**24
"""Of the pools whose size a table leaves out."""
_FUNDS = 10**30
_HEIGHT = 1
_NO_PAIR = "refused: one side must be the native asset and the other the pool's own"


def chains(rows: Sequence[Row]) -> Iterator[Verdict]:
    """EC: opens and closes; the chunks of one test go on from one another.   [X-5, X-6, X-7, X-10]"""
    run, going = None, None
    for row in rows:
        chain = (row.get("group"), row.get("test_index"))
        if run is None or chain != going or not row.get("chunk_index"):
            run, going = None, chain
        try:
            run = run or _chain(row)
        except (KeyError, ValueError, TypeError) as problem:
            yield differing(f"the row cannot be read: {type(problem).__name__} {problem}")
            continue
        yield judged(lambda row=row, run=run: _chunk(row, run))  # type: ignore[misc]


def open_close(row: Row) -> Verdict:
    """OpenClose and AddUpExistingMTP: steps with some of the fields that they leave.   [X-5, X-6, X-7, X-10]"""
    run, fields = None, []
    for place, step in enumerate(row["steps"]):
        if run is None:
            pool = read_pool(step["pool_before"])
            run = Run(_alone(pool, _side(step.get("signer_before"))), _terms(row["params"]))
        if step["op"] == "open":
            outcome = _open(run, step, dec(step, "leverage"))
        else:
            number = int(step.get("id") or max(run.state.amm_positions, default=0))
            outcome = run.close(int(step.get("height", _HEIGHT)), SIGNER, number)
        refused, error = engine_run.refusal(outcome), error_of(step)
        if bool(refused) != bool(error):
            return differing(f"step {place}: refused: ours {refused or 'no'}, theirs {error or 'no'}")
        fields += [(f"step {place} {name}", *values) for name, *values in _left(run, step)]
    return differing(f"theirs refuses: {error_of(row)}") if error_of(row) else compared(*fields)


def opened(row: Row) -> Verdict:
    """Open: which pairs, pools and senders are refused.   [X-5]"""
    run = _table(row, row["msgOpen"])
    outcome = _ordered(run, row, 2 * DEC)
    return _answered(row, engine_run.refusal(outcome))


def closed(row: Row) -> Verdict:
    """Close: of a position that is not there, or not the sender's.   [X-10]"""
    message = row.get("msgClose") or {}
    number = int(message.get("Id") or 0)
    run, owner = _with_position(row)
    if run is None:
        return _answered(row, _NO_PAIR)
    asks = row.get("overrideSigner") or owner
    return _answered(row, engine_run.refusal(run.close(_HEIGHT, asks, number)))


def force_closed(row: Row) -> Verdict:
    """ForceClose by an administrator, whatever the health; ours: an epoch at the highest safety factor.   [X-11]

    After it the position must be gone: `err2` says so, and closing it is refused.
    """
    number = int((row.get("msgForceClose") or {}).get("Id") or 0)
    errors = {name: row[name] for name in ("errString", "err") if row.get(name)}
    run, owner = _with_position(row)
    if run is None:
        return _answered(errors, _NO_PAIR)
    engine_run.configure(run, safety_factor=MAX_DEC, close_fund_share=0)
    forced = run.begin_block(_HEIGHT)
    if errors:
        return compared(("forced closes", number in forced, False))
    again = engine_run.refusal(run.close(_HEIGHT, owner, number))
    return compared(("forced closes", forced, [number]), ("gone", bool(again), bool(row.get("err2"))))


def borrowed(row: Row) -> Verdict:
    """Borrow: who can pay the collateral. It opens at 2×, since at 1× nothing is owed and no open ends well.   [X-5]"""
    pair = {"CollateralAsset": row["denom"], "BorrowAsset": row["to"], "CollateralAmount": row["collateralAmount"]}
    signer = row.get("address", "")
    message = pair | {"Signer": signer, "Position": "Position_LONG"}
    funds = _FUNDS if row.get("fundedAccount") else 0
    run = _table({**row, "poolEnabled": True}, message, funds, health=DEC, symbol=_own(pair))
    leverage = max(dec(row, "leverage"), 2 * DEC)
    return _answered(row, engine_run.refusal(_ordered(run, {"msgOpen": message}, leverage, _own(pair))))


def repaid(row: Row) -> Verdict:
    """Repay: what is returned must be payable, to somebody who is there. The table's pools hold no coins.   [X-10]"""
    left = pools.repayment(
        atoms(row, "repayAmount"), atoms(row, "liabilities"), atoms(row, "interestUnpaidCollateral")
    )
    owner, stranger = row["address"], row.get("overrideAddress")
    if not left.returned and not stranger:
        return _answered(row, "")
    run = _placed(_empty_pool(), 1, _DEPTH, owner=owner if is_address(owner) else SIGNER)
    return _answered(row, engine_run.refusal(run.close(_HEIGHT, stranger or owner, 1)))


def quoted(row: Row) -> Verdict:
    """CLPSwap: the quote for positions; one for assets that the pool does not have is refused by ours.   [X-1]"""
    run = Run(_alone(_deep_pool(), Side(0, 0)), DEFAULTS)
    denom, to, sent = row["denom"], row["to"], atoms(row, "sentAmount")
    if denom == NATIVE:
        # Their pool of the native asset against itself quotes any denomination, as if it were its own other side.
        paid, got = run.native, run.native if to == NATIVE else run.asset(to, "")
    else:
        paid, got = run.external, run.asset(to, denom)
    try:
        refused = "" if engine_pools.quote_swap(run.state, paid, got, sent).received else "POOL_AMOUNT"
    except Rejection as rejection:
        refused = rejection.reason.name
    is_pair = {paid, got} == {run.native, run.external}
    # What theirs prices between assets that are no pair must be something, else the amount is what is refused.
    is_priced = pools.swap(_DEPTH, _DEPTH, sent, DEFAULTS.fee_rate).received > 0
    return _answered(row, refused if is_pair else _NO_PAIR if is_priced else "POOL_AMOUNT")


def health_updated(row: Row) -> Verdict:
    """UpdateMTPHealth.   [X-6]"""
    pair = {"CollateralAsset": row["denom"], "BorrowAsset": row["to"]}
    if not row.get("position", "").endswith("LONG"):
        run = Run(_alone(_deep_pool(), Side(_FUNDS, _FUNDS)), DEFAULTS)
        step = {"collateral_asset": NATIVE, "collateral_amount": row["collateralAmount"]}
        return _answered(row, engine_run.refusal(_open(run, step, 2 * DEC)))
    if not _is_pair(pair):
        return _answered(row, _NO_PAIR)
    run = _placed(
        _deep_pool(), atoms(row, "custodyAmount"), atoms(row, "liabilities"),
        unpaid=atoms(row, "interestUnpaidCollateral"), native=row["denom"] == NATIVE,
    )  # fmt: skip
    position = run.state.amm_positions[1]
    measured = pool_positions.health(run.state.amm_pools[run.external], position)
    return _answered(row, "" if measured else "POOL_AMOUNT")


def rate_stepped(row: Row) -> Verdict:
    """InterestRateComputation without numbers: a step at most, then the bounds.   [X-8]"""
    before, most = dec(row, "interestRate"), dec(row, "interestRateMax")
    up, down = dec(row, "interestRateIncrease"), dec(row, "interestRateDecrease")
    rate = pools.next_rate(DEC, _DEPTH, _DEPTH, 0, 0, before, up, down, 0, most)
    if error_of(row) or rate is None:
        return _answered(row, "" if rate is not None else "EMPTY_POOL")
    lowest, highest = min(before - down, most), min(before + up, most)
    return MATCHED if lowest <= rate <= highest else differing(f"the rate went from {shown(before)} to {shown(rate)}")


def _chain(row: Row) -> Run:
    funds = Side(atoms(row, "signer_native_before"), atoms(row, "signer_external_before"))
    return Run(_alone(read_pool(row["pool_before"]), funds), _terms(row))


def _chunk(row: Row, run: Run) -> Verdict:
    outcome = _open(run, row, dec(row, "leverage"))
    refused = engine_run.refusal(outcome)
    error = error_of({name: value for name, value in row.items() if "close" not in name})
    if refused or error:
        return _both(refused, error)
    position = max(run.state.amm_positions)
    fields = list(_partial(run, row.get("expected_after_open") or {}))
    if "expected_after_close" in row or row.get("expected_close_error"):
        refused = engine_run.refusal(run.close(_HEIGHT, SIGNER, position))
        error = str(row.get("expected_close_error") or "")
        if refused or error:
            return _both(refused, error)
        fields += _partial(run, row.get("expected_after_close") or {})
    return compared(*fields)


def _both(refused: str, error: str) -> Verdict:
    if refused and error:
        return MATCHED
    return differing(f"refused: ours {refused or 'no'}, theirs {error or 'no'}")


def _partial(run: Run, expected: Row) -> Iterator[tuple[str, Any, Any]]:
    """Fields of a flat table: of the newest position, the signer, the pool."""
    image = run.image()
    newest = max(image.positions, key=lambda each: int(each["id"]), default={})
    for name in expected:
        bare = name.removeprefix("mtp_").removeprefix("signer_").removeprefix("pool_")
        if name.startswith("mtp_"):
            known = bare if bare in newest else name
            value = newest[known]
        elif name.startswith("signer_"):
            value = getattr(image.coins[SIGNER], bare)
        else:
            value = image.pool[bare]
        yield name, value, _number(expected, name, bare)


def _left(run: Run, step: Row) -> Iterator[tuple[str, Any, Any]]:
    """Fields that a step of a sequence tells: `expect_mtp`, `expect_pool`, `expect_signer`."""
    image = run.image()
    newest = max(image.positions, key=lambda each: int(each["id"]), default={})
    for name in step.get("expect_mtp") or {}:
        yield name, newest.get(name), _number(step["expect_mtp"], name, name)
    for name in step.get("expect_pool") or {}:
        yield name, image.pool[name], _number(step["expect_pool"], name, name)
    for name in step.get("expect_signer") or {}:
        held = image.coins[SIGNER]
        yield name, held.native if name == NATIVE else held.external, atoms(step["expect_signer"], name)


def _number(row: Row, name: str, bare: str) -> int:
    is_dec = bare in ("health", "mtp_health", "leverage", "interest_rate")
    return dec(row, name) if is_dec else atoms(row, name)


def _open(run: Run, step: Row, leverage: int) -> Any:
    native = step["collateral_asset"] == NATIVE
    assets = (run.native, run.external) if native else (run.external, run.native)
    if "borrow_asset" in step and (step["borrow_asset"] == NATIVE) == native:
        assets = (assets[0], assets[0])
    height = int(step.get("height", _HEIGHT))
    return run.open(height, SIGNER, *assets, atoms(step, "collateral_amount"), leverage)


def _terms(given: Row) -> Terms:
    """The original's defaults, and what the row says instead."""
    names = {
        "leverage_max": "leverage_max", "interest_rate_min": "rate_min", "interest_rate_max": "rate_max",
        "interest_rate_increase": "rate_increase", "interest_rate_decrease": "rate_decrease",
        "health_gain_factor": "gain_factor", "pool_open_threshold": "open_threshold",
        "removal_queue_threshold": "removal_threshold", "safety_factor": "safety_factor",
        "force_close_fund_percentage": "close_fund_share", "swap_fee_rate": "fee_rate",
        "incremental_interest_payment_fund_percentage": "interest_fund_share",
        "pmtp_current_running_rate": "running_rate",
    }  # fmt: skip
    changes: dict[str, Any] = {ours: dec(given, theirs) for theirs, ours in names.items() if theirs in given}
    if "epoch_length" in given:
        changes["epoch_length"] = max(1, int(given["epoch_length"]))
    if "max_open_positions" in given:
        changes["max_positions"] = int(given["max_open_positions"])
    if "incremental_interest_payment_enabled" in given:
        changes["pays_each_epoch"] = bool(given["incremental_interest_payment_enabled"])
    if "rowan_collateral_enabled" in given:
        changes["takes_native_collateral"] = bool(given["rowan_collateral_enabled"])
    return DEFAULTS._replace(**changes)


def _side(held: Row | None) -> Side:
    """What somebody has; plenty where it is not said."""
    if not held:
        return Side(_FUNDS, _FUNDS)
    external = next((atoms(held, name) for name in held if name != NATIVE), 0)
    return Side(atoms(held, NATIVE) if NATIVE in held else 0, external)


def _alone(pool: dict[str, int], funds: Side, owner: str = SIGNER) -> Image:
    """A pool and one user."""
    native = pool["native_asset_balance"] + pool["native_custody"]
    external = pool["external_asset_balance"] + pool["external_custody"]
    return Image(pool, [], {owner: funds, FUND: Side(0, 0), MODULE: Side(native, external)})


def _deep_pool() -> dict[str, int]:
    balances = {"native_asset_balance": str(_DEPTH), "external_asset_balance": str(_DEPTH)}
    return read_pool({**balances, "health": "1", "interest_rate": "0.01"})


def _empty_pool() -> dict[str, int]:
    return read_pool({"health": "1"})


def _placed(
    pool: dict[str, int], custody: int, liabilities: int, unpaid: int = 0, native: bool = True, owner: str = SIGNER
) -> Run:
    """A pool with one position, number 1."""
    side, other = ("native", "external") if native else ("external", "native")
    pool = pool | {f"{other}_custody": custody, f"{side}_liabilities": liabilities}
    position = {
        "id": 1, "owner": owner, "is_native": native, "collateral_amount": 1, "liabilities": liabilities,
        "custody_amount": custody, "interest_paid_collateral": 0, "interest_paid_custody": 0,
        "interest_unpaid_collateral": unpaid, "leverage": 2 * DEC, "mtp_health": DEC,
    }  # fmt: skip
    image = _alone(pool, Side(0, 0), owner)
    return Run(Image(image.pool, [position], image.coins), DEFAULTS)


def _table(
    row: Row, message: Row, funds: int | None = None, health: int = 0, symbol: str | None = None
) -> Run:
    """What a table says: whether there is a pool for the pair, whether it lends, whether the sender is somebody."""
    owner = message.get("Signer", "")
    held = funds if funds is not None else _FUNDS if row.get("fundedAccount") else 0
    state = PoolState.OPEN if row.get("poolEnabled") else PoolState.NO_OPENS
    pool = _deep_pool() | {"health": health}
    coins = _alone(pool, Side(held, held), owner if is_address(owner) else SIGNER)
    run = Run(coins, DEFAULTS, state=state)
    if (symbol if symbol is not None else row.get("poolAsset")) != _own(message):
        run.remove_pool()
    return run


def _ordered(run: Run, row: Row, leverage: int, symbol: str | None = None) -> Any:
    """The message of a table as a command; its sender may be nobody whom the exchange knows."""
    message = row["msgOpen"]
    own = symbol if symbol is not None else row.get("poolAsset", "")
    assets = [run.asset(message[name], own) for name in ("CollateralAsset", "BorrowAsset")]
    amount = atoms(message, "CollateralAmount")
    return run.open(_HEIGHT, message.get("Signer", ""), assets[0], assets[1], amount, leverage)


def _with_position(row: Row) -> tuple[Run | None, str]:
    """The pool and the position of a table, number 1; no position where it made none, or where its kind is unknown.

    None for the run when ours cannot have such a position, and the row says that theirs has.
    """
    message = row["msgOpen"]
    owner = (row.get("msgClose") or row.get("msgForceClose") or {}).get("MtpAddress") or SIGNER
    native = message["CollateralAsset"] == NATIVE
    has_pool = row.get("poolAsset") == _own(message)
    is_long = str(message.get("Position", "")).endswith("LONG")
    if not has_pool or row.get("mtpCreateDisabled") or not is_long:
        run = Run(_alone(_deep_pool(), Side(0, 0), owner), DEFAULTS)
        if not has_pool:
            run.remove_pool()
        return run, owner
    if not _is_pair(message):
        return None, owner
    return _placed(_deep_pool(), 10**18, 10**17, native=native, owner=owner), owner


def is_address(text: str) -> bool:
    """Whether somebody can be behind it: what a valid address is there, a registered key is here."""
    return _ADDRESS.fullmatch(text) is not None


def _own(message: Row) -> str:
    """Which pool the original looks for: the collateral's, or that of what is borrowed against the native asset."""
    collateral, borrow = message["CollateralAsset"], message["BorrowAsset"]
    return str(borrow if collateral == NATIVE else collateral)


def _is_pair(message: Row) -> bool:
    """Exactly one of the two is the native asset.   [X-5]"""
    return bool(message["CollateralAsset"] == NATIVE) != bool(message["BorrowAsset"] == NATIVE)


def _answered(row: Row, refused: str) -> Verdict:
    """The row's error against our refusal. What ours alone refuses is explained if it is the pair of assets."""
    error = error_of(row)
    if bool(refused) == bool(error):
        return MATCHED
    if refused in (_NO_PAIR, "POOL_PAIR", "UNKNOWN_ASSET", "UNKNOWN_POOL"):
        return explained(_NO_PAIR)
    return differing(f"refused: ours {refused or 'no'}, theirs {error or 'no'}")
