"""Finds the static pages, whether Satchel runs from a wheel or from a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def web_dir() -> Path:
    """The folder with the pages that the server hands out.

    A wheel carries it as `api/web`; a checkout has it as the top-level `web/`, beside `api/`.
    """
    package = Path(str(files("api")))
    for folder in (package / "web", package.parent / "web"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no pages: neither {package / 'web'} nor {package.parent / 'web'} is a folder")
