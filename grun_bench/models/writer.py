"""A model writes what question-answer rows lack: paraphrased questions and answers, and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from grun_bench.models.devices import cuda_devices
from grun_bench.models.lm import LM
from grun_bench.models.sampling import sample
from grun_bench.tasks.chats import last_said, question_of
from grun_bench.tasks.dataset import Row
from grun_bench.tasks.faults import CONTEXT, EMPTY, LENGTH, doubt_of
from grun_bench.tasks.made import MADE, Asked, MadeColumn, MadeRow, requests

#: texts with whether each came to its end; None where nothing could be asked
Replies = Sequence[tuple[str, bool]] | None

#: prompts that replies are drawn to at once, and the tokens that a reply may have beyond twice the original's
_PROMPTS, _SPARE = 8, 16
_SEED = 0
#: words that a label before a reply has at most
_LABEL = 3


def write(lm: LM, rows: Sequence[Row]) -> list[MadeRow]:
    """What a model writes for rows with `question` and `answer`: the columns that they lack, as writer.yaml asks.

    Of the replies that are drawn those are taken with which nothing is wrong as far as `tasks.faults` can tell; where
    none is left the column is None, and `left_out` says what was wrong with the first.
    """
    found: list[Row] = [{"question": row["question"], "answer": row["answer"], **_asked_in(row)} for row in rows]
    left: list[dict[MadeColumn, str]] = [{} for _ in rows]
    with torch.random.fork_rng(devices=cuda_devices(lm.model)):
        torch.manual_seed(_SEED)
        for column in MADE:
            asked = [place for place, row in enumerate(rows) if column not in row]
            told = [_told(column, rows[place]) for place in asked]
            for place, row, texts in zip(asked, told, _replies(lm, column, told), strict=True):
                kept, why = _taken(column, texts, found[place] | row)
                if kept:
                    found[place][column] = kept if column == "perturbed_answer" else kept[0]
                else:
                    left[place][column] = why
    return [MadeRow(**row, left_out=why) for row, why in zip(found, left, strict=True)]


def _asked_in(row: Row) -> Row:
    """The user's last turn, where a row is a conversation."""
    return {"asked": last_said(question_of(row))} if row.get("turns") else {}


def _told(column: MadeColumn, row: Row) -> Row:
    """A row as the writer is told it: a conversation is one text, and its last turn what is put in other words."""
    return row | {"question": last_said(question_of(row))} if column == "paraphrased_question" else row


def _taken(column: MadeColumn, replies: Replies, row: Row) -> tuple[list[str], str]:
    """The replies that can be trusted, as many as are asked for; and what is wrong with the first of the others."""
    if replies is None:
        return [], CONTEXT
    kept: list[str] = []
    whys: list[str] = []
    for text, whole in replies:
        doubt = doubt_of(column, text, row, kept) if whole else LENGTH
        (whys if doubt else kept).append(doubt or text)
    return kept[: requests()[column].keep], next(iter(whys), EMPTY)


def _replies(lm: LM, column: MadeColumn, rows: Sequence[Row]) -> list[Replies]:
    """The replies to each row."""
    originals = [row["question"] if column == "paraphrased_question" else row["answer"] for row in rows]
    limits = [2 * len(lm.prompts.answer(original)) + _SPARE for original in originals]
    prompts = [_prompt(lm, column, row, limit) for row, limit in zip(rows, limits, strict=True)]
    fitting = [place for place, prompt in enumerate(prompts) if prompt]
    asked, found = requests()[column], list[Replies]([None] * len(rows))
    texts = sample(
        lm,
        [prompts[place] for place in fitting],
        [limits[place] for place in fitting],
        asked.tries,
        asked.temperature,
        _PROMPTS,
        f"writing {column.replace('_', ' ')}s",
    )
    for place, each in zip(fitting, texts, strict=True):
        lengths = [len(lm.prompts.answer(text)) for text in each]
        found[place] = [
            (plain(text, originals[place]), length <= limits[place]) for text, length in zip(each, lengths, strict=True)
        ]
    return found


def _prompt(lm: LM, column: MadeColumn, row: Row, limit: int) -> list[int]:
    """Token ids of the request, after the rows that are shown where there is room for them; none where it has none."""
    asked = requests()[column]
    shown = [(_request(asked, each.question, each.answer), each.reply) for each in asked.shown]
    for context in (shown, []):
        prompt = lm.prompts.prompt(_request(asked, row["question"], row["answer"]), context)
        if lm.context is None or len(prompt) + limit <= lm.context:
            return prompt
    return []


def _request(asked: Asked, question: str, answer: str) -> str:
    return asked.request.replace("{question}", question).replace("{answer}", answer)


def plain(text: str, original: str) -> str:
    """A reply without the label before it, quotes around it, and, unless the original has several, further lines."""
    text = text.strip()
    if "\n" not in original.strip():
        text = text.split("\n")[0].strip()
    label, colon, rest = text.partition(":")
    if colon and rest.strip() and ":" not in original and len(label.split()) <= _LABEL:
        text = rest.strip()
    for opening, closing in ('""', "''", "“”", "«»"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing and original[:1] != opening:
            text = text[1:-1].strip()
    return text
