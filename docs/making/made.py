"""All pages that are made, by their places on the site.

`python -m making.made`, in docs/, writes the tables anew that stand in pages of docs/.
"""

from __future__ import annotations

from pathlib import Path

from making import interface, links, plugins

#: what stands in a page of docs/ before a table that is made and ends it
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
    """The text of a page of docs/ with the table that it ends in as it is now."""
    before, mark, _ = markdown.partition(TRAINING)
    return f"{before}{mark}\n\n{interface.training_table().rstrip()}\n" if mark else markdown


if __name__ == "__main__":
    page = Path(__file__).parents[1] / "settings.md"
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
