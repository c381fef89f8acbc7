"""Operator commands over the wire: which there are, and how a JSON object becomes the engine's command.   [W-7]"""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from api.errors import bad_request
from engine.commands import (
    ApproveWithdrawal,
    CollectPoolFees,
    Command,
    ConfigureAsset,
    ConfigureChain,
    ConfigureFees,
    ConfigureMarket,
    ConfigurePool,
    ConfigureToken,
    FeedQuotes,
    FundInsurance,
    GrantTier,
    ReceiveYield,
    RegisterKey,
    RejectWithdrawal,
    RotateKey,
    SetPrices,
    StakeAssets,
    StopWithdrawals,
    UnstakeAssets,
)
from engine.parameters import MAX_DEC
from ledger.amounts import INT64_MAX

OPERATIONS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ApproveWithdrawal,
        CollectPoolFees,
        ConfigureAsset,
        ConfigureChain,
        ConfigureFees,
        ConfigureMarket,
        ConfigurePool,
        ConfigureToken,
        FeedQuotes,
        FundInsurance,
        GrantTier,
        ReceiveYield,
        RegisterKey,
        RejectWithdrawal,
        RotateKey,
        SetPrices,
        StakeAssets,
        StopWithdrawals,
        UnstakeAssets,
    )
}
"""What operators may ask for: markets, parameters, prices, users, approvals, halts, yields, insurance, keys."""


def operator_command(name: str, arguments: str) -> Command:
    """The command `name` with its fields from `arguments`, a JSON object; nested parameters are objects too.

    Names are the engine's own (`market_id`), numbers integers in the engine's scales, bytes base64.
    """
    kind = OPERATIONS.get(name)
    if kind is None:
        raise bad_request(f"command {name[:40]!r} is none of {', '.join(sorted(OPERATIONS))}")
    try:
        content = msgspec.json.decode(arguments)
        _require_plain(content, MAX_DEC if kind is ConfigurePool else INT64_MAX)
        command: Command = _built(kind, content, name)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise bad_request(f"arguments of {name}: {error}") from None
    return command


def plain_reply(reply: Any) -> Any:
    """What the engine answered a command, as JSON has it: an object by the engine's field names, bytes in base64."""
    return msgspec.to_builtins(msgspec.structs.asdict(reply) if isinstance(reply, msgspec.Struct) else reply)


def _require_plain(content: Any, most: int) -> None:
    """Integers that the log can hold, and text that people and databases read in one way only.   [T-6, T-7]

    What counts in 1e-18 may need all 64 bits: the engine has a range for each of a liquidity pool's parameters.
    """
    if isinstance(content, dict):
        for name, value in content.items():
            _require_plain(name, most)
            _require_plain(value, most)
    elif isinstance(content, list):
        for value in content:
            _require_plain(value, most)
    elif isinstance(content, str):
        if not content.isprintable():
            raise ValueError(f"{content[:40]!a} has characters that cannot be printed")
    elif isinstance(content, int) and not -INT64_MAX <= content <= most:
        raise ValueError(f"{str(content)[:40]} does not fit 64 bits")


def _built(kind: Any, content: Any, path: str) -> Any:
    """`content` as a value of type `kind`; structs are given as objects, by field name."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if not isinstance(content, dict):
            raise ValueError(f"{path} must be an object")
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for name in content:
            if name not in fields:
                raise ValueError(f"{path} has no field {name!r}")
        for name, field in fields.items():
            if name not in content and field.required:
                raise ValueError(f"{path}.{name} is missing")
        return kind(**{name: _built(hints[name], value, f"{path}.{name}") for name, value in content.items()})
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        if not isinstance(content, list):
            raise ValueError(f"{path} must be a list")
        return tuple(_built(arguments[0], item, path) for item in content)
    for option in arguments:
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return None if content is None else _built(option, content, path)
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from None
