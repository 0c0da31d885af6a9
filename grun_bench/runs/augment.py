"""Own rows that lack paraphrases and wrong answers: a model writes them, once, into a file beside the rows."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from grun_bench.core.escaping import clean
from grun_bench.core.progress import say
from grun_bench.methods.saving import check_no_adapter
from grun_bench.models.loading import load
from grun_bench.models.names import folder_of
from grun_bench.models.writer import write
from grun_bench.runs.config import RunConfig
from grun_bench.runs.own import own_world, writer_of
from grun_bench.runs.session import Session
from grun_bench.tasks.made import MADE, MadeRow, MadeRows
from grun_bench.tasks.own import Own

#: rows that are written before the file has them, and those that are shown
_ROWS, _SHOWN = 32, 3
_LONG = 200


def augmented(config: RunConfig, session: Session) -> Session:
    """The session with rows that have what was to be made for them; the file beside them has it then, too.

    Rows that are in the file already are not asked for again. Raises ModelError where the writer cannot be had,
    DataError or UsageError as `own_world` does.
    """
    if not config.augment:
        return session
    world = cast(Own, session.world)
    wanting = world.wanting(config.limit)
    if not wanting:
        return session
    name = writer_of(config)
    if folder := folder_of(name):
        check_no_adapter(folder)
    lm = load(name if config.writer or not config.revision else f"{name}@{config.revision}", session.placement)
    for role, rows in wanting.items():
        made = world.made[role].adding((), lm.origin)  # where nothing can be written, nothing is asked
        say(f"{world.files[role].path.name}: {made.made_by} writes paraphrases and wrong answers for {len(rows)} rows.")
        for start in range(0, len(rows), _ROWS):
            new = write(lm, rows[start : start + _ROWS])
            made = made.adding(new, lm.origin)
            if not start:
                _show(made, new[:_SHOWN])
    del lm
    gc.collect()
    return replace(session, world=own_world(config))


def _show(made: MadeRows, rows: Sequence[MadeRow]) -> None:
    """The first rows, for whoever is to read the rest in the file."""
    for row in rows:
        say(f"  question: {clean(row.question, _LONG)}   answer: {clean(row.answer, _LONG)}")
        for name in MADE:
            value = getattr(row, name)
            none = f"none ({row.left_out.get(name, 'the row has its own')})"
            texts = [value] if isinstance(value, str) else value or [none]
            say(f"    {name}: {' | '.join(clean(text, _LONG) for text in texts)}")
    say(f"  These and all others are in {made.path}: read them, mend what is wrong; the next run takes it from there.")
