"""Records: what a model said about each example, as plain data. No torch.

Scoring leaves one record per example; metrics are functions of records alone, so a number can be recomputed, checked
or newly defined without the model. Logs of other tools are imported into the same records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError

from grun_bench.core.errors import wrong
from grun_bench.core.strict_json import json_lines
from grun_bench.core.untrusted import pieces, refuse
from grun_bench.core.words import words

#: how records are read: as they are written, nothing converted
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
#: bytes of a records file, uncompressed
RECORDS_BYTES = 512 * 2**20
#: words in a text that ROUGE compares: its time and memory grow with their product
MAX_WORDS = 4_000
_WORD = re.compile(r"[A-Za-z0-9]+")  # as published; `words` finds more in some texts and fewer in others


@dataclass
class Continuation:
    """A scored answer: natural-log probabilities of its tokens given the prompt and the tokens before.

    `logprobs` and `matches` have one entry per scored token, the end of sequence included; `matches` is 1 where the
    token is the model's argmax. `means` and `deviations` are, per token, the mean and standard deviation of the log
    probability under the model's own next-token distribution (for min-k++). Imported logs know only `loss`, the mean
    negative log-likelihood in nats a token, and perhaps `probability`, exp(-loss) with the rounding of the tool that
    wrote it; `tokens` may be unknown.
    """

    __pydantic_config__ = _STRICT

    text: str
    logprobs: list[float] | None = None
    matches: list[int] | None = None
    means: list[float] | None = None
    deviations: list[float] | None = None
    loss: float | None = None
    tokens: int | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None:
            if not self.logprobs:
                raise ValueError("logprobs: no tokens")
            for name in ("matches", "means", "deviations"):
                each = getattr(self, name)
                if each is not None and len(each) != len(self.logprobs):
                    raise ValueError(f"{name}: {len(each)} entries for {len(self.logprobs)} tokens")
            self.tokens = len(self.logprobs)
            if self.loss is None:
                self.loss = -sum(self.logprobs) / len(self.logprobs)


@dataclass
class Generation:
    """Greedy text after the prompt; `finished` is False when it ran into the limit of new tokens."""

    __pydantic_config__ = _STRICT

    text: str
    tokens: int | None = None
    finished: bool | None = None


@dataclass
class Choices:
    """A multiple-choice question as lm-eval scored it, options in their order.

    `logprobs`: each option's natural-log probability given the context, summed over its tokens; `greedy`: whether
    greedy decoding gives the option; `target`: the index of the right one.
    """

    __pydantic_config__ = _STRICT

    logprobs: list[float]
    greedy: list[bool]
    target: int

    def __post_init__(self) -> None:
        if len(self.greedy) != len(self.logprobs):
            raise ValueError(f"greedy: {len(self.greedy)} entries for {len(self.logprobs)} options")
        if not 0 <= self.target < len(self.logprobs):
            raise ValueError(f"target: {self.target} is none of {len(self.logprobs)} options")


@dataclass
class Record:
    """One example of one set, scored by one model.

    `gates` maps the 0-based layer to the gate's value in [0, 1] on the question, `gates_paraphrased` on the
    paraphrased question; None for models without gates. `scores` holds per-example values that an imported log gives
    without what they were computed from, gradient norms and similarities where a metric asks for them, and those of
    lm-eval, whose records have `choices` and no texts. Under attack, `prefill` are the first words of the answer that
    were given: `answer` and `generation` are what comes after them; `samples` are answers sampled at temperature 1.
    Where a record is `hidden`, hashes stand in the place of all its texts (see `results.private`).
    """

    __pydantic_config__ = _STRICT

    set: str
    index: int
    question: str
    answer: Continuation
    paraphrased: Continuation | None = None
    perturbed: list[Continuation] = field(default_factory=list)
    generation: Generation | None = None
    gates: dict[str, float] | None = None
    gates_paraphrased: dict[str, float] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    choices: Choices | None = None
    prefill: str | None = None
    samples: list[str] = field(default_factory=list)
    hidden: bool | None = None


class Records(Sequence[Record]):
    """The records of one model on one task."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def of(self, name: str) -> list[Record]:
        """The records of one set, in row order."""
        return sorted((record for record in self._records if record.set == name), key=lambda record: record.index)

    def summarised(self) -> Records:
        """The records without the tokens of paraphrased and wrong answers, whose losses are all that metrics read."""

        def short(answer: Continuation) -> Continuation:
            return Continuation(answer.text, loss=answer.loss, tokens=answer.tokens)

        return Records(
            replace(
                record,
                paraphrased=record.paraphrased and short(record.paraphrased),
                perturbed=[short(answer) for answer in record.perturbed],
            )
            for record in self
        )

    def dumps(self) -> str:
        """JSON Lines: one record a line, absent fields left out."""
        return "".join(
            json.dumps(_compact(record), ensure_ascii=False, separators=(",", ":")) + "\n" for record in self
        )


def _compact(value: Any) -> Any:
    """Plain data without what is None or empty in a record or a mapping. (`asdict` copies every number by itself.)"""
    if is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items() if item is not None and item != [] and item != {}}
    if isinstance(value, list):
        return [_compact(item) for item in value]
    return value


@cache
def _reader() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def load_records(path: Path) -> Records:
    """Read a records file, compressed or not, strictly: it may come from a stranger.

    Raises UsageError with the line and the place in it for a field that is unknown, missing, of another type or not
    finite, for lists of different lengths, and for what `strict_json.parse_json` refuses.
    """
    records = []
    for line, place in json_lines(pieces(path, RECORDS_BYTES), path):
        try:
            record = _reader().validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            refuse(place, f"not a record ({where}: {wrong(first)})")
        texts = [record.answer.text, *record.samples, *([record.generation.text] if record.generation else ())]
        if any(len(text) > MAX_WORDS < max(len(_WORD.findall(text)), len(words(text))) for text in texts):
            refuse(place, f"a text of more than {MAX_WORDS:,} words")
        records.append(record)
    return Records(records)
