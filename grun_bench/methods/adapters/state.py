"""What lies beside a model, in the model's state_dict: so no other model takes that for its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

#: what the names of it begin with there
BESIDE = "edits_beside_the_model."


def keep_in_state(model: nn.Module, beside: nn.Module) -> None:
    """From here on the model's state_dict has, and loads, what `beside` has."""
    model.register_state_dict_post_hook(partial(_add, beside))
    model.register_load_state_dict_pre_hook(partial(_take, beside))


def _add(beside: nn.Module, model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.update({f"{prefix}{BESIDE}{name}": tensor for name, tensor in beside.state_dict().items()})


def _take(beside: nn.Module, model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    mine = {name: state.pop(name) for name in list(state) if name.startswith(f"{prefix}{BESIDE}")}
    if mine:
        beside.load_state_dict({name.removeprefix(f"{prefix}{BESIDE}"): mine[name] for name in mine})
