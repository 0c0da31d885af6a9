"""All pages that are made, by their places on the site."""

from __future__ import annotations

from pathlib import Path

from making import interface, links, plugins

#: what stands in a page of docs/ where a table is made
TRAINING = "<!-- training settings -->"


def pages(root: Path) -> dict[str, str]:
    made = {
        "commands.md": interface.commands_page(),
        "reference.md": interface.reference_page(),
        "result-file.md": interface.result_page(),
        "all-metrics.md": plugins.metric_page(),
        **plugins.method_pages(root),
        **plugins.attack_pages(root),
    }
    texts = {path: place for path, place in links.PAGES.items() if path != "README.md"} | links.boards(root)
    for path, place in texts.items():
        made[place] = links.moved((root / path).read_text(encoding="utf-8"), path, place, root)
    return made


def filled(markdown: str) -> str:
    """The text of a page of docs/ with the tables that it asks for."""
    return markdown.replace(TRAINING, interface.training_table()) if TRAINING in markdown else markdown
