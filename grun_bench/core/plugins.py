"""The kinds of plugins: what each may declare, and the decorators that register one.

A plugin registers itself with a decorator in its file::

    @objective("ga")
    def ga(batch): ...

What the decorators take beside the name are the fields of the classes here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.ranges import OF_ADAPTER, OF_OBJECTIVE, OF_ONE_TERM, Searched

T = TypeVar("T")
Kind = Literal["adapter", "objective", "metric", "attack", "unlearner"]
#: what a model is to every run, beside a method's: what it is compared with
Control = Literal["target", "retain model"]
#: whether a higher value of a metric is better: always, never, neither, or as the set is to be kept or forgotten
Better = bool | Literal["kept", "forgotten"] | None
#: modules of files given with `--include-path` have names that begin so; their plugins are theirs alone
INCLUDED = "grun_bench_include_"
#: and those of built-in plugins so
_PACKAGE = "grun_bench."


@dataclass(frozen=True)
class Plugin:
    """A registered object: the class of an adapter or unlearner, or the function of any other kind."""

    name: str
    target: Callable[..., Any]


@dataclass(frozen=True)
class AdapterPlugin(Plugin):
    """What may change: `grun_bench.methods.adapters.base` says what such a class has.

    `searched` are the settings, its own or of training, that it is tuned over (see `ranges`).
    """

    searched: Searched = field(default_factory=lambda: OF_ADAPTER)


@dataclass(frozen=True)
class ObjectivePlugin(Plugin):
    """What to optimise. `needs` are the parts of a batch beside the forget set; `retain` is the retain term.

    `searched` are the settings, its own or of training, that it is tuned over (see `ranges`).
    """

    needs: Sequence[str] = ()
    retain: str | None = None
    searched: Searched = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.searched:
            object.__setattr__(self, "searched", OF_OBJECTIVE if self.retain else OF_ONE_TERM)


@dataclass(frozen=True)
class MetricPlugin(Plugin):
    """A function of records. `grun_bench.metrics` says what each option means."""

    roles: Sequence[str] | None = None
    kind: Literal["answers", "questions"] = "answers"
    over: Sequence[str] = ()
    higher_is_better: Better | Mapping[str, Better] = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    reference: Literal["retain"] | None = None
    leaves_out: Callable[[Any, Any], str | None] | None = None
    gradients: bool = False
    sentences: bool = False
    classifier: bool = False
    divergence: bool = False
    version: int = 1

    def __post_init__(self) -> None:
        if self.roles is not None and (self.over or self.reference):
            raise UsageError(
                f"the metric '{self.name}' has `roles`, so it sees one set's rows: no `over`, no `reference`."
            )
        if self.roles is None and self.kind != "answers":
            raise UsageError(f"the metric '{self.name}' is over all records, whatever their kind: it has no `roles`.")


@dataclass(frozen=True)
class AttackPlugin(Plugin):
    """Another model or other questions. `grun_bench.attacks.base` says what each option means."""

    access: Literal["user", "weights"]
    version: int
    metrics: Sequence[str] | None = None
    metrics_if_listed: Sequence[str] = ()
    utility: Sequence[str] = ()
    mean: bool = False
    extra: tuple[str, str] | None = None


@dataclass(frozen=True)
class UnlearnerPlugin(Plugin):
    """A method that is no pair of adapter and objective, or a model that every run is compared with (`role`).

    `searched` are the settings that it is tuned over (see `ranges`); one that declares none cannot be tuned.
    """

    role: Control | None = None
    searched: Searched = field(default_factory=dict)


CLASSES: dict[Kind, type[Plugin]] = {
    "adapter": AdapterPlugin,
    "objective": ObjectivePlugin,
    "metric": MetricPlugin,
    "attack": AttackPlugin,
    "unlearner": UnlearnerPlugin,
}
#: what the classes of a kind derive from, as `module.name`
BASES: dict[Kind, str] = {
    "adapter": "grun_bench.methods.adapters.base.Adapter",
    "unlearner": "grun_bench.methods.base.Unlearner",
}
#: (module of an included file, else "", kind, name) -> plugin: written once, when its module is imported
_registered: dict[tuple[str, Kind, str], Plugin] = {}


def registered(module: str, kind: Kind, name: str) -> Plugin | None:
    """The plugin that an included file's module registered ("": that any other module did); None where it did not."""
    return _registered.get((module, kind, name))


def from_outside(module: str) -> list[tuple[Kind, Plugin]]:
    """What a module that is none of this package registered."""
    if module.startswith(_PACKAGE):
        return []
    return [(kind, each) for (_, kind, _), each in _registered.items() if _module(each.target) == module]


def _module(target: object) -> str:
    return str(getattr(target, "__module__", ""))


def _check(kind: Kind, name: str, target: object) -> None:
    """Raises UsageError for what is no function, or no class derived from the base of its kind.

    An objective may be a class too, whose instances are called as the function would be.
    """
    base, classes = BASES.get(kind), getattr(target, "__mro__", ())
    if base is not None:
        # by name, for the bases load torch, and whoever derives from one has it
        if base not in (f"{each.__module__}.{each.__name__}" for each in classes):
            raise UsageError(f"the {kind} '{name}' is to be a class derived from {base}.")
    elif classes and not (kind == "objective" and any("__call__" in vars(each) for each in classes)):
        raise UsageError(f"the {kind} '{name}' is to be a function.")


def _decorator(kind: Kind) -> Callable[..., Callable[[T], T]]:
    cls = CLASSES[kind]
    options = {each.name for each in fields(cls)} - {"name", "target"}

    def declare(name: str, **given: Any) -> Callable[[T], T]:
        for option in given.keys() - options:
            raise unknown(f"option of the {kind} {name}", option, options)

        def register(target: T) -> T:
            _check(kind, name, target)
            module = _module(target)
            own = module if module.startswith(INCLUDED) else ""
            _registered[own, kind, name] = cls(name, target, **given)  # type: ignore[arg-type]
            return target

        return register

    return declare


adapter = _decorator("adapter")
objective = _decorator("objective")
metric = _decorator("metric")
attack = _decorator("attack")
unlearner = _decorator("unlearner")
