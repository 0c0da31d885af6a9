"""Where a model computes: on one device, or spread over several, over host memory and over files (accelerate).

A spread model takes its inputs on any device and gives its logits on theirs; in between every block computes on a
device of its own. What lies in host memory beside a GPU, or in files, is offloaded: accelerate brings a layer's weights
to the device for the time that it runs, and in between its parameters have no numbers, on the device `meta`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from grun_bench.core.errors import first_line
from grun_bench.models.quantised import is_quantised


def device_of(module: nn.Module) -> torch.device:
    """The device that a module, or the first part of it that has one, computes on."""
    for each in module.modules():
        for hook in _hooks(each):
            if getattr(hook, "execution_device", None) is not None:
                return torch.device(hook.execution_device)
        for parameter in each.parameters(recurse=False):
            if parameter.device.type != "meta":
                return parameter.device
    return torch.device("meta")


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    hook = getattr(module, "_hf_hook", None)
    return () if hook is None else tuple(getattr(hook, "hooks", (hook,)))


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate moves what goes in and out of a model's parts."""
    return any(_hooks(module) for module in model.modules())


def is_offloaded(module: nn.Module) -> bool:
    """Whether weights of a module lie elsewhere than where it computes."""
    return any(parameter.device.type == "meta" for parameter in module.parameters())


def absent(place: str | int) -> str | None:
    """Why torch has no such device here, in its words; None if it has."""
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        return first_line(error).partition(". ")[0].rstrip(".")
    return None


def cuda_devices(model: nn.Module) -> list[torch.device]:
    """The GPUs whose random numbers a model may draw."""
    if not is_spread(model):
        device = device_of(model)
        return [device] if device.type == "cuda" else []
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """Within this block the offloaded weights of a single module are where it computes, for what reads them itself."""
    bringing = [hook for hook in _hooks(module) if getattr(hook, "offload", False)]
    for hook in bringing:
        hook.pre_forward(module)
    try:
        yield
    finally:
        for hook in bringing:
            hook.post_forward(module, None)


@contextmanager
def standing_in(model: nn.Module) -> Iterator[None]:
    """Within this block offloaded weights are zeros on the devices that their layers compute on, which take no memory:
    for what asks weights where they are, to put something beside them."""
    replaced = []
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type == "meta":
                zeros = torch.zeros((), dtype=parameter.dtype, device=device_of(module)).expand(parameter.shape)
                replaced.append((module, name, parameter))
                module._parameters[name] = nn.Parameter(zeros, requires_grad=False)
    try:
        yield
    finally:
        for module, name, parameter in replaced:
            module._parameters[name] = parameter


#: why weights cannot be trained, by the option that makes them so
UNCHANGEABLE = {
    "quantise": "the base is in four bits, whole numbers that no gradient moves: train an adapter beside it (lora, "
    "reft, grun), or take the base as it is",
    "device_map": "--device-map spreads weights that stay as they are: an adapter beside them (lora, reft, grun) can "
    "be trained so; weights that are trained are sharded over processes, with FSDP under torchrun",
}


def unchangeable(model: nn.Module) -> str | None:
    """Why the weights of a model cannot be trained, in words; None if they can."""
    if is_quantised(model):
        return UNCHANGEABLE["quantise"]
    return UNCHANGEABLE["device_map"] if is_spread(model) else None
