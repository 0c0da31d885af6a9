"""How results are put in words, the same in the terminal and on pages: numbers, headings, what data. No torch."""

from __future__ import annotations

from functools import lru_cache

from pydantic import ValidationError

from grun_bench.results.protocol_names import plain_name
from grun_bench.results.result import Cost, Result
from grun_bench.tasks.made import made_words
from grun_bench.tasks.task import Task

#: in the keys of metrics that count rows
_COUNT = "forget_quality_n"
#: the better direction of a metric
_ARROWS = {True: "↑", False: "↓", None: ""}


def number(value: float | None, digits: int = 3) -> str:
    """A metric value for people: three decimals, or the power of ten of a small one; a dash for a missing one."""
    if value is None:
        return "-"
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def metric_number(metric: str, value: float | None) -> str:
    """The same of a value of this metric: what is a count of rows is a whole number."""
    if value is not None and _COUNT in metric and value == int(value):
        return f"{int(value):,}"
    return number(value)


def heading(result: Result, metric: str) -> str:
    """A metric's name with the arrow of its better direction; the protocol, which every title names, is left out."""
    return metric_heading(metric, result.better(metric), result.protocol)


@lru_cache(maxsize=2**12)  # every row of a page has the same
def metric_heading(metric: str, better: bool | None, protocol: str) -> str:
    """The heading of a metric of which higher values are `better` (None: no direction) under a protocol."""
    name = plain_name(metric, protocol).replace("_", " ")
    return f"{name} {_ARROWS[better]}".strip()


def made_notes(result: Result) -> list[str]:
    """What a model wrote for own rows, by file: numbers with paraphrases and wrong answers are of that."""
    try:
        own = Task.model_validate(result.configs.get(result.task)).own
    except ValidationError:  # a stranger's
        return []
    return [made_words(file.file, file.made) for file in own.values() if file.made]


def trained_share(cost: Cost) -> float:
    """Trainable parameters in per cent of the model's; 100 where it does not say how many those are."""
    return 100 * cost.trainable_parameters / cost.parameters if cost.parameters else 100.0


def dataset_label(result: Result) -> str:
    """`embedded (toy)` or `published`, with the beginning of the data's hash."""
    return f"{result.dataset}{' (toy)' if result.toy else ''} {result.dataset_hash[:8]}"
