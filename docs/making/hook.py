"""MkDocs' way in: which pages are made, where they stand in the navigation, and where links lead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from making import links, made  # noqa: E402

#: a page that is made -> its text; made once a build
_texts: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Makes the pages and puts those of a folder where the navigation names the folder."""
    _texts.clear()
    _texts.update(made.pages(ROOT))
    config.nav = _filled(config.nav or [])
    return config


def _filled(nav: list[Any]) -> list[Any]:
    filled: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            filled += [{title: _filled(held) if isinstance(held, list) else held for title, held in entry.items()}]
        elif str(entry).endswith("/"):
            filled += [page for page in _texts if page.startswith(entry)]
        else:
            filled.append(entry)
    return filled


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, text in _texts.items():
        files.append(File.generated(config, page, content=text))
    for source, place in links.copied(ROOT).items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tables that pages ask for; links out of docs/ lead to where the site has what they name."""
    place = page.file.src_uri
    return markdown if place in _texts else links.moved(made.filled(markdown), f"docs/{place}", place, ROOT)
