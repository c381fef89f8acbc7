"""What every test may use."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester", "tests.fixtures.servers", "tests.fixtures.clients"]

LONGEST = ("tests/test_compiled.py", "tests/crash/", "tests/clients/", "tests/docs/", "tests/machine/", "tests/chains/")
"""Files of few and long tests go first, or one worker would end with them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; all others stay in their order."""

    def place(item: pytest.Item) -> int:
        found = [number for number, name in enumerate(LONGEST) if item.nodeid.startswith(name)]
        return found[0] if found else len(LONGEST)

    items.sort(key=place)
