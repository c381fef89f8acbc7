"""The compiled contracts of devnets and tests: ABI and bytecode committed beside their Vyper source."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

COMPILER = "0.4.3"


def contract(name: str) -> dict[str, Any]:
    """`abi` and `bytecode` of a contract by name: Token or Relay."""
    loaded: dict[str, Any] = json.loads(resources.files(__package__).joinpath(f"{name}.json").read_text())
    return loaded
