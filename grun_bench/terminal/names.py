"""Names and what they are, for `ls`. Without rich, which takes as long to load as all the rest."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping

from grun_bench.core.escaping import clean


def print_names(title: str, summaries: Mapping[str, str]) -> None:
    """A name a line with its summary, which is broken where the terminal ends."""
    names = {clean(name): clean(summary) for name, summary in summaries.items()}
    indent = max(map(len, names), default=0) + 4
    columns = max(shutil.get_terminal_size().columns, indent + 20)
    print(title)
    for name, summary in names.items():
        start = f"  {name}".ljust(indent)
        # whatever stands in a summary may be copied: no word of it is broken
        lines = textwrap.TextWrapper(columns, start, " " * indent, break_long_words=False, break_on_hyphens=False)
        print(lines.fill(summary) or start.rstrip())
