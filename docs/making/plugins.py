"""Pages of methods, attacks and metrics, from what the plugins say of themselves."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grun_bench.attacks.needed import SAMPLE
from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.plugins import AttackPlugin, Kind, MetricPlugin, ObjectivePlugin, Plugin
from grun_bench.core.settings import bounds_of, options_of
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import in_force
from grun_bench.tasks.world import PUBLISHED
from making import filed
from making.words import cell, code, docstring, page, papers_linked, parts, sources, table

#: what of its kind each is called on its page
KINDS: dict[Kind, str] = {"adapter": "Adapter", "objective": "Objective", "unlearner": "Unlearner of its own"}
#: training settings in force that a page of an objective or adapter shows
SHOWN = ("lr", "epochs", "batch_size", "weight_decay", "warmup", "forget_weight", "retain_weight", "retain")
#: what `needs` of an objective cost
NEEDS = {
    "reference": "once, before the training: the target model's losses of the forget answers",
    "target": "in every step: a pass of the target model over the same rows",
    "idk": "in every step: a refusal beside each forget row",
    "alternate": "before the training: other answers to each forget question, which the target model writes",
    "hidden": "nothing more: hidden states are those of the same pass",
    "retain": "a retain term, which cannot be left out",
}

#: what a setting without bounds of its own must be, by the type of its default
TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    list: "a list",
    dict: "names, a text each",
}


def built_in(kind: Kind) -> dict[str, Plugin]:
    """The plugins of a kind that the package has, by name."""
    return {name: registry.get(kind, name) for name, entry in registry.entries(kind).items() if entry.builtin}


# --- methods ----------------------------------------------------------------------------------------------------------


def method_pages(root: Path) -> dict[str, str]:
    """A page of each adapter, objective and unlearner, and one that lists them."""
    found = {kind: built_in(kind) for kind in KINDS}
    pages = {"methods/index.md": _method_list(found)}
    for kind, plugins in found.items():
        for name, plugin in plugins.items():
            pages[f"methods/{name}.md"] = _method_page(root, kind, plugin)
    return pages


def _method_list(found: Mapping[Kind, Mapping[str, Plugin]]) -> str:
    texts = [
        "An unlearner is `adapter+objective`, as in `grun+npo`: the adapter says what may change, the objective what "
        "is optimised. A bare objective trains all weights. Each page is made from what the method's source says of it."
    ]
    for kind, plugins in found.items():
        rows = [(f"[{name}]({name}.md)", parts(plugin.target)[0]) for name, plugin in plugins.items()]
        texts += [f"## {KINDS[kind]}s" if kind != "unlearner" else "## Unlearners of their own"]
        texts += [table((kind, "idea"), rows)]
    return page("All methods", *texts)


def _method_page(root: Path, kind: Kind, plugin: Plugin) -> str:
    idea, rest = parts(plugin.target)
    texts = [f"{KINDS[kind]}, in `{_source(plugin.target)}`.", idea]
    if rest:
        texts += ["## Formula and details", rest]
    texts += ["## Settings", _settings(plugin, in_force(options_of(plugin.target), [plugin.name], PUBLISHED.sections))]
    if kind != "unlearner":
        texts += ["## Training by default", _in_force(kind, plugin.name)]
    texts += sources(inspect.getdoc(plugin.target) or "", plugin.name)
    texts += ["## Cost", _cost(plugin)]
    if took := filed.training(root, plugin.name):
        texts += ["Of the project's own rows, medians over seeds and settings:", took]
    return page(plugin.name, *texts)


def _source(target: Callable[..., Any]) -> str:
    return f"{target.__module__.replace('.', '/')}.py"


def _settings(plugin: Plugin, defaults: Mapping[str, Any], place: str = "") -> str:
    """A table of the plugin's own settings: defaults, what they must be, where `tune` searches."""
    bounds, searched = bounds_of(plugin.target), getattr(plugin, "searched", {})
    rows = [
        (
            code(f"--set {place}{name}="),
            cell(value) or "none",
            bounds[name].words if name in bounds else TYPES.get(type(value), ""),
            str(searched.get(name, "")),
        )
        for name, value in defaults.items()
    ]
    beside = {name: each for name, each in searched.items() if name not in defaults}
    text = table(("setting", "default", "must be", "tuned over"), rows) or "None of its own."
    if beside:
        names = ", ".join(f"`{name}` {each}" for name, each in beside.items())
        text += f"\nOf the [training settings](../settings.md) `grun-bench tune` searches: {names}."
    return text


def _in_force(kind: Kind, name: str) -> str:
    """The training settings of its pairs with plugins of the other kind, as recipes.yaml has them for real models."""
    others = registry.names("objective" if kind == "adapter" else "adapter")
    rows = []
    for other in others:
        pair = f"{name}+{other}" if kind == "adapter" else f"{other}+{name}"
        try:
            settings = make_unlearner(pair, {}, PUBLISHED).settings
        except GrunBenchError as error:
            rows.append((code(pair), str(error), *[""] * (len(SHOWN) - 1)))
            continue
        rows.append((code(pair), *(cell(settings[key]) or "none" for key in SHOWN)))
    said = "Of published tasks and models (recipe `default`; [Recipes](../recipes.md) has the others):"
    return f"{said}\n\n{table(('pair', *SHOWN), rows)}"


def _cost(plugin: Plugin) -> str:
    if not isinstance(plugin, ObjectivePlugin):
        return "What it takes depends on what it is paired with and on the model."
    says = ["in every step: a forward and backward pass over the forget rows"]
    if plugin.retain:
        says += [f"and over as many retain rows, for the retain term `{plugin.retain}`"]
    says += [NEEDS[need] for need in plugin.needs if need != "retain"]
    return "\n".join(f"- {each}" for each in says)


# --- attacks ----------------------------------------------------------------------------------------------------------


def attack_pages(root: Path) -> dict[str, str]:
    return {f"attacks/{name}.md": _attack_page(root, plugin) for name, plugin in built_in("attack").items()}


def _attack_page(root: Path, plugin: Plugin) -> str:
    if not isinstance(plugin, AttackPlugin):
        raise TypeError(f"{plugin} is no attack.")
    idea, rest = parts(plugin.target)
    who = "a user, who may only ask" if plugin.access == "user" else "an owner of the weights"
    module = inspect.getdoc(sys.modules[plugin.target.__module__]) or ""
    texts = [
        f"Of {who}; version {plugin.version}, in `{_source(plugin.target)}`.",
        idea,
        rest,
        papers_linked(module),
        "```sh\n"
        f"grun-bench run --unlearner grun+npo --task tofu_forget10 --attacks {plugin.name}\n"
        f"grun-bench attack RUN --attacks {plugin.name}\n"
        "```",
        "## Settings",
        _settings(plugin, in_force(options_of(plugin.target), [plugin.name], PUBLISHED.sections), f"{plugin.name}."),
        "## What is asked",
        _asked(plugin),
    ]
    texts += sources(f"{module}\n{inspect.getdoc(plugin.target) or ''}", plugin.name)
    if took := filed.attacking(root, plugin.name):
        texts += ["## Cost", "Of the project's own rows, medians over methods and seeds:", took]
    return page(plugin.name, *texts)


def _asked(plugin: AttackPlugin) -> str:
    says = ["All rows of forget sets: metrics of forgetting are computed again on them."]
    if plugin.utility:
        says += [f"Of sets of the roles {_names(plugin.utility)} {SAMPLE} rows each, as it changes their answers too."]
    if plugin.metrics is not None:
        says += [f"It leaves records of its own kind: {_names(plugin.metrics)} take the place of the task's metrics."]
    if plugin.mean:
        says += ["The mean over its variants is reported beside the worst one."]
    if plugin.extra:
        says += [f"It needs `pip install 'grun-bench[{plugin.extra[1]}]'`."]
    return " ".join(says)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# --- metrics ----------------------------------------------------------------------------------------------------------


def metric_page() -> str:
    """All metrics, by the file that they are in."""
    modules: dict[str, list[MetricPlugin]] = {}
    for plugin in built_in("metric").values():
        if not isinstance(plugin, MetricPlugin):
            raise TypeError(f"{plugin} is no metric.")
        modules.setdefault(plugin.target.__module__, []).append(plugin)
    texts = [
        "Every metric's definition and source, from its docstring. A metric of a set is reported as `<set>_<name>`, "
        "one over all records as `<name>`; [Metrics](metrics.md) says which to look at."
    ]
    for module, plugins in modules.items():
        first, rest = parts(sys.modules[module])
        texts += [f"## {first.rstrip('.')}", rest]
        for plugin in plugins:
            texts += [f"### {code(plugin.name)}", docstring(plugin.target), _declared(plugin)]
    return page("All metrics", *texts)


def _declared(plugin: MetricPlugin) -> str:
    sets = plugin.roles if plugin.roles is not None else plugin.over
    says = [
        f"Of sets of the roles {_names(sets)}" if plugin.roles is not None else f"Over {_names(sets) or 'all'} rows"
    ]
    says += [f"{_better(plugin.higher_is_better)}", f"from {_end(plugin.bounds[0])} to {_end(plugin.bounds[1])}"]
    if plugin.reference:
        says += ["needs the retain model's records"]
    return f"{'; '.join(says)}; version {plugin.version}."


def _better(better: Any) -> str:
    if isinstance(better, Mapping):
        return ", ".join(f"of `{name}` {_better(each)}" for name, each in better.items())
    words = {
        True: "higher is better",
        False: "lower is better",
        None: "no direction",
        "kept": "higher is better of what is kept, lower of what is forgotten",
        "forgotten": "lower is better of what is kept, higher of what is forgotten",
    }
    return words[better]


def _end(number: float) -> str:
    return f"{'-' if number < 0 else ''}∞" if math.isinf(number) else f"{number:g}"
