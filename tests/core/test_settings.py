"""Settings: what is declared of their values holds for the defaults, and other values are refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest

from grun_bench.attacks.base import make_attacks
from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.settings import (
    Count,
    at_least,
    between,
    bounds_of,
    each,
    one_of,
    options_of,
    override,
    whole,
    within,
)
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import Recipe, in_force
from grun_bench.tasks.world import PUBLISHED, TOY, World

if TYPE_CHECKING:
    from decimal import Decimal


class Plugin:
    def __init__(
        self,
        *,
        rank: Count = 4,
        share: Annotated[float, within(0, 1)] = 0.5,
        temperature: Annotated[float, between(0, 2)] = 1.0,
        way: Annotated[str, one_of("up", "down")] = "up",
        steps: Annotated[list[int], each(whole(1))] = [1, 2],  # noqa: B006
        pair: Annotated[tuple[float, ...], each(at_least(0), 2)] = (0.5, 0.5),
        free: float = 0.0,
        price: Decimal | None = None,
    ) -> None: ...


class Inheriting(Plugin):
    """Its constructor is another class's."""


def asked(**overrides: Any) -> dict[str, Any]:
    return override(options_of(Inheriting), overrides, "plugin", bounds_of(Inheriting))


@pytest.mark.parametrize("key", ["rank", "free", "steps"])
def test_numbers_beyond_what_floats_hold_are_refused(key: str) -> None:
    for number in (10**30, -(10**30), 10**400):
        with pytest.raises(UsageError, match=rf"{key}=.*: expected a number of at most 2\*\*53"):
            asked(**{key: [number] if key == "steps" else number})


@pytest.mark.parametrize(
    ("key", "good", "bad", "words"),
    [
        ("rank", [1, 7], [0, -1], "rank must be at least 1"),
        ("share", [0.0, 1, 0.3], [-0.1, 1.1, 2], "share must be from 0 to 1"),
        ("temperature", [0.1, 1.9], [0.0, 2.0, -1.0], "temperature must be above 0 and below 2"),
        ("way", ["down"], ["left", ""], "way must be one of up, down"),
        (
            "steps",
            [[3], [1, 1, 5]],
            [[], [0], [3, -1]],
            "steps must be a list of one or more, each a whole number of at least 1",
        ),
        ("pair", [[0, 0.5]], [[1.0], [1.0, 1.0, 1.0], [-1.0, 1.0]], "pair must be a list of 2, each at least 0"),
    ],
)
def test_bounds_are_what_is_declared(key: str, good: list[Any], bad: list[Any], words: str) -> None:
    for value in good:
        assert asked(**{key: value})[key] == value
    for value in bad:
        with pytest.raises(UsageError) as refused:
            asked(**{key: value})
        assert str(refused.value).startswith(f"--set {key}={value}: ") and words in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-inf", ".nan", "nan"])
@pytest.mark.parametrize("key", ["free", "share"])
def test_numbers_are_finite(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--set {key}="):
        asked(**{key: value})


@pytest.mark.parametrize("value", [["a"], [1.5], [True], [[1]], [None]])
def test_items_of_a_list_have_its_type(value: list[Any]) -> None:
    with pytest.raises(UsageError, match=r"--set steps=.*(expected float|a whole number)"):
        asked(steps=value)


def test_small_numbers_in_a_list_may_be_written_as_yaml_misreads_them() -> None:
    assert asked(pair=["1e-3", 2])["pair"] == [0.001, 2]


def test_depths_may_be_shares_where_the_default_is_blocks() -> None:
    assert make_unlearner("grun+npo", {}, TOY).settings["layers"] == [1, 2, 3]
    assert make_unlearner("grun+npo", {"layers": [0.5, 1.0]}, TOY).settings["layers"] == [0.5, 1.0]
    assert make_unlearner("grun+npo", {"layers": [3, 5]}, PUBLISHED).settings["layers"] == [3, 5]


def pairs() -> list[str]:
    return [
        f"{adapter}+{objective}" for adapter in registry.names("adapter") for objective in registry.names("objective")
    ]


@pytest.mark.parametrize("world", [PUBLISHED, TOY])
def test_every_default_is_within_its_bounds(world: World) -> None:
    checked = 0
    for name in [*registry.names("unlearner"), *pairs()]:
        parsed = registry.parse_unlearner(name)
        names = [parsed] if isinstance(parsed, str) else list(parsed)
        kinds = ["unlearner"] if isinstance(parsed, str) else ["adapter", "objective"]
        targets = [registry.get(kind, part).target for kind, part in zip(kinds, names, strict=True)]
        bounds = bounds_of(*targets) if isinstance(parsed, str) else bounds_of(Recipe, *targets)
        settings = make_unlearner(name, {}, world).settings
        for key in bounds.keys() & settings.keys():
            assert bounds[key].holds(settings[key]), f"{name}: {key}={settings[key]} is not {bounds[key].words}"
            checked += 1
    for name in registry.names("attack"):
        target = registry.get("attack", name).target
        settings = in_force(options_of(target), [name], world.sections)
        assert all(bound.holds(settings[key]) for key, bound in bounds_of(target).items())
    assert checked > 500


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *[("full+npo", key, 0) for key in ("epochs", "batch_size", "lr", "accumulate", "clip", "beta")],
        *[("full+npo", key, -1) for key in ("lr", "weight_decay", "warmup", "forget_weight", "retain_weight")],
        ("full+npo", "warmup", 1.5),
        *[(f"{adapter}+npo", "rank", rank) for adapter in ("lora", "reft", "grun") for rank in (0, -1)],
        *[(f"{adapter}+npo", "layers", []) for adapter in ("reft", "grun")],
        ("grun+npo", "layers", [0.5, 1.5]),
        ("lora+npo", "dropout", 1.0),
        ("full+rmu", "positions", "all"),
        ("full+altpo", "alternates", 0),
        ("full+jensun", "refusal", " "),
        ("task-vector", "epochs", 0),
        ("task-vector", "scale", ".inf"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused(name: str, key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--set {key}="):
        make_unlearner(name, {key: value}, PUBLISHED)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(f"relearn.{key}", 0) for key in ("batch_size", "rank", "lora_lr", "full_lr")],
        ("relearn.steps", [0]),
        ("relearn.share", 1.5),
        ("relearn.kinds", ["forgot"]),
        ("relearn.ways", []),
        ("fewshot.shots", 0),
        ("sampling.answers", -1),
        ("prefill.words", [0]),
        ("probe.depths", [1.0]),
        ("int4.codes", ["nf5"]),
    ],
)
def test_an_attack_that_makes_no_sense_is_refused_by_its_whole_name(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--set {key}="):
        make_attacks([key.partition(".")[0]], {key: value}, TOY)
