"""What a terminal showed, read as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects in what was shown, lists taken apart; some answers end no line."""
    decoder, at = json.JSONDecoder(), 0
    while found := re.search(r"[\[{]", text[at:]):
        at += found.start()
        try:
            said, at = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
        else:
            yield from (row for row in (said if isinstance(said, list) else [said]) if isinstance(row, dict))
