"""Settings of plugins: their keyword-only parameters with defaults, and the user's values in place of these.

A parameter's annotation may say what its values must be beside their type: `rank: Count = 4`, or with a bound of its
own `share: Annotated[float, within(0.1, 0.9)] = 0.2`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.escaping import shown

#: a setting of this name is a depth: a whole number is a block, a float a share of the blocks
DEPTH = "layer"

#: what other tools call settings (transformers, PEFT, OpenUnlearning, lm-eval), in small letters without `_` and `-` ->
#: what they are called here
ELSEWHERE = {
    "learningrate": "lr",
    "rate": "lr",
    "numepochs": "epochs",
    "numtrainepochs": "epochs",
    "epoch": "epochs",
    "bs": "batch_size",
    "trainbatchsize": "batch_size",
    "perdevicetrainbatchsize": "batch_size",
    "gradientaccumulationsteps": "accumulate",
    "gradaccum": "accumulate",
    "gradientcheckpointing": "checkpointing",
    "maxsteps": "steps",
    "numsteps": "steps",
    "maxgradnorm": "clip",
    "gradclip": "clip",
    "warmupratio": "warmup",
    "warmupsteps": "warmup",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "lrschedulertype": "decay",
    "scheduler": "decay",
    "optim": "optimiser",
    "optimizer": "optimiser",
    "maxlength": "text_length",
    "gamma": "forget_weight",
    "alpha": "retain_weight",
    "lambda": "retain_weight",
    "retainlosstype": "retain",
    "retainloss": "retain",
    "r": "rank",
    "lorar": "rank",
    "lorarank": "rank",
    "loraalpha": "alpha",
    "loradropout": "dropout",
    "targetmodules": "weights",
    "layerid": "layer",
    "steeringcoeff": "steering",
}


@dataclass(frozen=True)
class Bound:
    """What the values of a setting must be: `words` end the sentence "rank must be ..."."""

    words: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Bound:
    """A number that is not below `low`."""
    return Bound(f"at least {low}", lambda value: value >= low)


def whole(low: int) -> Bound:
    """A whole number that is not below `low`, where numbers with a fraction are of the type too, as in lists."""
    return Bound(f"a whole number of at least {low}", lambda value: isinstance(value, int) and value >= low)


def above(low: float) -> Bound:
    """A number that is greater than `low`."""
    return Bound(f"above {low}", lambda value: value > low)


def within(low: float, high: float) -> Bound:
    """A number from `low` to `high`, both among them."""
    return Bound(f"from {low} to {high}", lambda value: low <= value <= high)


def between(low: float, high: float) -> Bound:
    """A number between `low` and `high`, which are not among them."""
    return Bound(f"above {low} and below {high}", lambda value: low < value < high)


def one_of(*choices: str) -> Bound:
    """One of these words."""
    return Bound(f"one of {', '.join(choices)}", lambda value: value in choices)


def each(bound: Bound, count: int | None = None) -> Bound:
    """A list of so many, or of one or more, each of which is within a bound."""

    def holds(values: Any) -> bool:
        return len(values) == (count or len(values)) and len(values) > 0 and all(map(bound.holds, values))

    return Bound(f"a list of {count or 'one or more'}, each {bound.words}", holds)


#: marks a setting that came after rows were filed: results say it only where it is not at its default, so that the ids
#: of those rows, which do not say it, stay
LATER = "later"

#: usual bounds: how many of something, sizes of steps and temperatures, weights that may be 0, shares that may be whole
Count = Annotated[int, at_least(1)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, within(0, 1)]


def options_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a plugin with their defaults: what `--set` can override."""
    return {parameter.name: parameter.default for parameter in _parameters(target)}


def bounds_of(*targets: Callable[..., Any]) -> dict[str, Bound]:
    """The bounds of plugins' keyword-only parameters, of those that declare one."""
    return {name: mark for name, mark in _marks(*targets) if isinstance(mark, Bound)}


def said(settings: Mapping[str, Any], *targets: Callable[..., Any]) -> dict[str, Any]:
    """Settings as results have them: those of `targets` marked LATER only where they are not at their default."""
    defaults = later(*targets)
    return {name: value for name, value in settings.items() if name not in defaults or value != defaults[name]}


def later(*targets: Callable[..., Any]) -> dict[str, Any]:
    """The settings of `targets` that are marked LATER, with their defaults."""
    marked = {name for name, mark in _marks(*targets) if mark is LATER}
    return {name: value for target in targets for name, value in options_of(target).items() if name in marked}


def _marks(*targets: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """What the annotations of plugins' keyword-only parameters say beside the type, by name."""
    for target in targets:
        # where the annotations are to be read: a class's parameters are its constructor's
        function = target if hasattr(target, "__globals__") else getattr(target, "__init__", None)
        names = getattr(function, "__globals__", {})
        for parameter in _parameters(target):
            declared = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
            try:
                hint = get_type_hints(declared, names, include_extras=True)[parameter.name]
            except NameError:  # imported for type checkers alone: no mark of ours
                continue
            yield from ((parameter.name, mark) for mark in getattr(hint, "__metadata__", ()))


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(target).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def here(name: object) -> str:
    """What a setting is called here that other tools call so; "" for none."""
    return ELSEWHERE.get(str(name).lower().replace("_", "").replace("-", ""), "")


def override(
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
    plugin: str,
    bounds: Mapping[str, Bound] = {},
    place: str = "--set ",
) -> dict[str, Any]:
    """Settings with the user's in place of the defaults; errors call one what stands before its name at its `place`.

    Raises UsageError for an unknown one, a wrong type, or a value out of its bounds.
    """
    settings = dict(defaults)
    for key, value in overrides.items():
        if key not in settings:
            raise unknown(f"setting of {plugin}", key, settings, meant=here(key))
        settings[key] = typed(key, value, settings[key], place)
        if key in bounds and settings[key] is not None and not bounds[key].holds(settings[key]):
            raise UsageError(f"{place}{key}={shown(value)}: {key} must be {bounds[key].words}.")
    return settings


def typed(key: str, value: Any, default: Any, place: str = "--set ") -> Any:
    """The value of a setting as one of its default's type. Raises UsageError where it is none."""
    try:
        return _coerce(key, value, default)
    except TypeError as error:
        raise UsageError(f"{place}{key}={shown(value)}: {error}") from None


#: whole numbers that every float and every counter holds; no setting means a larger one
_MOST = 2**53


def _coerce(key: str, value: Any, default: Any, within_list: bool = False) -> Any:
    """The value as one of the default's type. Raises TypeError where it is none."""
    if isinstance(default, tuple | list) and isinstance(value, list):
        # of a list of depths the items may be shares where the default's are numbers of blocks
        numbers = [float(item) if type(item) is int else item for item in default]
        return [_coerce(key, item, numbers[0], True) for item in value] if numbers else value
    if isinstance(value, int) and abs(value) > _MOST:
        raise TypeError("expected a number of at most 2**53.")
    if isinstance(default, float) and isinstance(value, int | str) and not isinstance(value, bool):
        if isinstance(value, int) and (key == DEPTH or within_list):
            return value
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError("expected a finite number.")
    if default is None or type(value) is type(default):
        return value
    raise TypeError(f"expected {type(default).__name__}, as in {default}.")
