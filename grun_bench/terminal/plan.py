"""The plan of a run as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from grun_bench.core.printing import put
from grun_bench.terminal.listing import print_rows, tell

if TYPE_CHECKING:
    from grun_bench.runs.plan import Estimate, Plan, PlannedSetting


def print_plan(plan: Plan, as_json: bool) -> None:
    """What a run would do, as tables or as JSON."""
    if as_json:
        put(json.dumps(plan.as_dict(), indent=1) + "\n")
        return
    tell(f"{plan.unlearner} on {plan.task}: model {plan.model}, seed {plan.seed}; nothing is run, nothing is written.")
    if plan.settings:
        rows = [(each.name, _value(each.value), *_other(each)) for each in plan.settings]
        print_rows("settings in force", ("setting", "value", "set by", "in place of"), rows)
    print_rows("rows", ("set", "rows"), [(name, f"{count:,}") for name, count in plan.sets.items()])
    made = [(each.unlearner, each.run_id, "filed" if each.filed else "to be made", _left(each)) for each in plan.rows]
    print_rows("to be made, in this order", ("row", "run", "is", "attacks to come"), [*_models(plan), *made])
    print_rows("training and scoring", ("what", "number"), _numbers(plan))
    if plan.memory:
        parts = [(name, size(count)) for name, count in plan.memory.device.items()]
        parts += [("together, on the device", size(plan.memory.total))]
        parts += [(f"{name}, in host memory", size(count)) for name, count in plan.memory.host.items() if count]
        print_rows("memory at the peak of training, estimated from shapes", ("of", "bytes"), parts)
    if plan.attacked:
        print_rows("attacks", ("attack", "rows a variant"), [(name, f"{n:,}") for name, n in plan.attacked.items()])
    print_rows("time of the unlearner's row", ("part", "seconds", "how it is known"), list(_times(plan)))
    tell(*plan.notes)


def _other(setting: PlannedSetting) -> tuple[str, str]:
    """What set it, and in place of which default; nothing where it is at that."""
    return (setting.by, _value(setting.default)) if setting.by else ("", "")


def _value(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _left(row: object) -> str:
    return ", ".join(getattr(row, "attacks", ())) or "none"


def _models(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    for role, made in plan.models.items():
        steps = "" if made["steps"] is None else f" in {made['steps']:,} steps"
        yield f"{role}'s weights", "", "in the cache" if made["there"] else f"to be trained{steps}", ""


def _numbers(plan: Plan) -> Iterator[tuple[str, str]]:
    rounded = f", base weights in {plan.quantise}" if plan.quantise else ""
    yield "device and dtype", f"{plan.device}, {plan.dtype}{rounded}"
    if training := plan.training:
        most = " at most (answers are yet to be written)" if training.estimated else ""
        yield "requests", f"{training.requests:,}"
        yield "optimiser steps", f"{training.steps:,}"
        yield "tokens trained on, prompts included", f"{training.tokens:,}{most}"
        yield "tokens of answers among them", f"{training.answer_tokens:,}{most}"
        yield "trained parameters", f"{training.parameters:,}"
    yield "rows that are scored, of each model", f"{plan.scored_rows:,}"


def _times(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Part by part, those of attacks that are not known together."""
    unknown = {name for name in plan.attacked if (found := plan.seconds.get(f"attack {name}")) and found.value is None}
    for part, each in plan.seconds.items():
        if part.removeprefix("attack ") not in unknown:
            yield part, _seconds(each), each.reason
    if unknown:
        those = f"attack {', '.join(unknown)}" if len(unknown) == 1 else f"{len(unknown)} attacks"
        yield those, "not known", "no row there was attacked so on this machine"


def _seconds(estimate: Estimate) -> str:
    return "not known" if estimate.value is None else f"{estimate.value:,g}"


def size(count: int) -> str:
    """Bytes in GiB, or MiB where they are few."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
