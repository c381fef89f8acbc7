"""The committed bytecode is what its source compiles to."""

from __future__ import annotations

from importlib import resources

import pytest

from chains.contracts import COMPILER, contract


@pytest.mark.parametrize("name", ["Token", "Relay"])
def test_recompiling_gives_the_same_bytes(name: str) -> None:
    vyper = pytest.importorskip("vyper", reason="the vyper compiler is not installed")
    if vyper.__version__.split("+")[0] != COMPILER:
        pytest.skip(f"vyper {vyper.__version__} is installed, the bytes are of {COMPILER}")
    source = resources.files("chains.contracts").joinpath(f"{name}.vy").read_text()
    compiled = vyper.compile_code(source, output_formats=["abi", "bytecode"])

    assert compiled["bytecode"] == contract(name)["bytecode"]
    assert compiled["abi"] == contract(name)["abi"]
