"""The base of an attacked model, apart from what an adapter put beside it, and its weights back as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.models.forward import decoder_layers
from grun_bench.tasks.roles import Role

#: what an attack may take from everyone that changes the model
KEPT: tuple[Role, ...] = ("retain", "utility", "neighbour")


def adapter_parameters(subject: Subject) -> list[nn.Parameter]:
    """What was trained beside the model; nothing where the model itself was changed."""
    return [] if subject.adapter is None else list(subject.adapter.trainable_parameters())


def base_parameters(subject: Subject) -> list[nn.Parameter]:
    """All weights of the model but the adapter's."""
    own = {id(parameter) for parameter in adapter_parameters(subject)}
    return [parameter for parameter in subject.lm.model.parameters() if id(parameter) not in own]


def base_linears(subject: Subject) -> list[nn.Linear]:
    """The linear layers of the decoder blocks, without the adapter's."""
    base = {id(parameter) for parameter in base_parameters(subject)}
    modules = decoder_layers(subject.lm.model).modules()
    return [module for module in modules if isinstance(module, nn.Linear) and id(module.weight) in base]


@contextmanager
def restored(parameters: Iterable[Tensor]) -> Iterator[None]:
    """After this block the parameters have the values and the dtype from before it; the copies wait on the CPU."""
    parameters = list(parameters)
    if any(parameter.device.type == "meta" for parameter in parameters):
        raise Inapplicable("weights of the base lie in host memory or in files (--device-map): nothing changes them.")
    kept = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, value in kept:
            parameter.data = value.to(parameter.device)
