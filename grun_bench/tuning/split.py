"""What trials unlearn and are judged on: a part of the training rows of a task, and no scored set. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grun_bench.core.errors import Refused
from grun_bench.tasks.chats import Chat, changed, question_of
from grun_bench.tasks.dataset import Row, Source
from grun_bench.tasks.neutral import SENTENCES
from grun_bench.tasks.task import ScoredData, Task
from grun_bench.tasks.world import World

#: one entity in so many is for validation
SHARE = 5
#: rows of a set that are asked, evenly spread where there are more; each is asked in its other wording too
ASKED = 100
_READ = ("question", "turns", "answer", "text")
#: the metrics of the rule: what is left of the forget set, and what utility is the harmonic mean of
EXTRACTION, PROBABILITY, DIVERGENCE = "extraction_strength", "probability", "kl_to_target"


@dataclass(frozen=True)
class Problem:
    """A task of unlearning that settings are judged on, and its rows by the names of its sources.

    `on` is what results say of it, as in `validation of tofu_forget10`. The first of its headline is what is to fall,
    the others are what utility is made of, or the one that stands for it.
    """

    task: Task
    tables: Mapping[str, list[Row]]
    on: str

    @property
    def keeps_rows(self) -> bool:
        """Whether utility is that of rows that were held out; else it is the divergence on neutral texts."""
        return bool(self.task.sets.of("retain"))


def validation(task: Task, world: World, limit: int | None = None) -> Problem:
    """The problem of a task that settings are tuned on.

    The last fifth of the forget set's entities is forgotten, and asked; the others of them are in no set. The last
    fifth of the retain set's is asked and trained on by nobody, the others are the retain set. A forget set of fewer
    than five entities has a sibling in its place, as the task says. Rows with a paraphrased question are asked in both
    wordings. Raises Refused where there is neither, DataError where rows cannot be had.
    """
    forget, retain = (
        list(_parted(task, world, sources, limit)) for sources in (task.whole_forget, task.sources["retain"])
    )
    chosen, kind = [row for part in forget for row in part[1]], "validation"
    if not chosen:
        chosen, kind = _sibling(task, world, limit), "sibling"
    gone = {_content(row) for row in chosen}
    held, kept = ([row for part in retain for row in part[at] if _content(row) not in gone] for at in (1, 0))
    known = [row for part in (*forget, *retain) for row in (*part[0], *part[1])]
    if task.learning.get("target"):
        known = [row for source in task.learning["target"] for row in world.rows(source, None, limit).rows]
    elif not gone <= {_content(row) for row in known}:
        known = [*chosen, *(row for part in retain for row in (*part[0], *part[1]))]
    tables = {"train-forget": chosen, "train-retain": kept, "learnt": known, "forget": _asked(chosen)}
    if held:
        tables["retain"] = _asked(held)
    else:
        tables["neutral_texts"] = [{"text": text} for text in SENTENCES]
    return Problem(task_of(task, kind, tables), tables, f"{kind} of {task.name}")


def _parted(
    task: Task, world: World, sources: Sequence[Source], limit: int | None
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Of each source the rows of its entities but the last fifth, and those of the last fifth."""
    for source in sources:
        entities = _entities(task, world, source, limit)
        first = len(entities) - len(entities) // SHARE
        yield [row for rows in entities[:first] for row in rows], [row for rows in entities[first:] for row in rows]


def _entities(task: Task, world: World, source: Source, limit: int | None) -> list[list[Row]]:
    """The rows of a source, entity by entity."""
    found, entity = world.rows(source, None, limit), task.tuning.entity
    table = world.read(source)[0] if isinstance(entity, str) else []
    groups: dict[Any, list[Row]] = {}
    for number, row in zip(found.numbers, found.rows, strict=True):
        own = table[number].get(entity) if isinstance(entity, str) else number // entity if entity else number
        groups.setdefault(own, []).append(row)
    return list(groups.values())


def _sibling(task: Task, world: World, limit: int | None) -> list[Row]:
    if not task.sibling:
        what = f"fewer than {SHARE} entities" if task.tuning.entity else f"fewer than {SHARE} rows"
        raise Refused(
            f"{task.name}: its forget set has {what}, too few to hold a part out, and its file names no others: "
            "tuning: {sibling: [SOURCE]} are as many rows about other entities, which are not scored."
        )
    return [row for source in task.sibling for row in world.rows(source, None, limit).rows]


def _content(row: Row) -> tuple[str, str]:
    return row.get("question") or "", row.get("answer") or row["text"]


def _asked(rows: Sequence[Row]) -> list[Row]:
    """Of these rows as many as are asked, and after them those with a paraphrased question in that wording."""
    some = [rows[at * len(rows) // ASKED] for at in range(ASKED)] if len(rows) > ASKED else list(rows)
    others = [_reworded(row) for row in some if row.get("paraphrased_question")]
    # a row that is asked has nothing but its question and answer: nothing else is measured of it
    return [{name: row[name] for name in _READ if row.get(name)} for row in (*some, *others)]


def _reworded(row: Row) -> Row:
    """A row with its question, or the user's last turn, in other words."""
    question = changed(question_of(row), lambda _: str(row["paraphrased_question"]))
    turns = {"turns": [list(turn) for turn in question.turns]} if isinstance(question, Chat) else {}
    return row | {"question": str(question)} | turns


def task_of(task: Task, kind: str, tables: Mapping[str, list[Row]]) -> Task:
    """The task of a problem: `train-forget` and `train-retain` of its tables are the training sets, `learnt` is what
    the target model is made on, and `forget` and `retain` or `neutral_texts` are asked."""
    scored: dict[str, str | ScoredData] = {
        name: ScoredData(source=name, role=role) for name, role in _ROLES.items() if name in tables
    }
    return Task(
        name=f"{task.name}-{kind}",
        version=1,
        description=f"{kind.capitalize()} of {task.name}: what settings are tuned on.",
        forget=["train-forget"],
        retain=["train-retain"],
        learnt={"target": ["learnt"]},
        score=scored,
        finetune=task.finetune,
        prompt=task.prompt,
        max_new_tokens=task.max_new_tokens,
        models=task.models,
        private=task.private,
        family=task.family,
        **judged(task, "retain" in scored),
    )


_ROLES: Any = {"forget": "forget", "retain": "retain", "neutral_texts": "utility"}


def judged(task: Task, keeps_rows: bool) -> dict[str, Any]:
    """The metrics and the headline of the rule, in a task with a scored set `forget` and, with `keeps_rows`, `retain`;
    else with `neutral_texts`."""
    rouge = next((name for name in task.metrics if name.startswith("rougeL_recall")), "rougeL_recall")
    kept = [f"retain_{PROBABILITY}", f"retain_{rouge}"] if keeps_rows else [f"neutral_texts_{DIVERGENCE}"]
    metrics = [EXTRACTION, PROBABILITY, rouge, *([] if keeps_rows else [DIVERGENCE])]
    return {"metrics": metrics, "headline": [f"forget_{EXTRACTION}", *kept]}
