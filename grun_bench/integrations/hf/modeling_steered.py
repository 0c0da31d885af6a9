"""A language model that steers away from what a prompt asks for, where that is near to what was unlearned.

Written by grun-bench. It needs torch and transformers alone:

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

`config.edits["steering"]` says how (GUARD-IT, arXiv 2605.12765). A prompt is embedded as the mean of its states at the
output of one decoder block, less the mean of prompts to be kept, and compared with clusters of what was unlearned.
Where the largest cosine is above `threshold`, every token of the prompt and of what follows has h' = (h - a v) |h| /
|h - a v| there, with the cluster's vector v and a = `strength`.

So a prompt has to come in one call, and a call has to say where prompts end, as `modeling_edited.py` says.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from grun_bench.integrations.hf.modeling_edited import (
    EditedConfig,
    EditedForCausalLM,
    _cache,
    _keep,
    _numbers,
    _pass,
    _past,
    _seen,
    _whole,
)

__all__ = ["EditedConfig", "SteeredForCausalLM"]


class Clusters(nn.Module):
    """The clusters of one request: `centroids` and `vectors` (clusters, hidden), `centre` (hidden,). They keep their 32
    bits in whatever dtype the model is loaded: they are integers."""

    def __init__(self, count: int, hidden: int) -> None:
        super().__init__()
        for name, shape in {"centroids": (count, hidden), "vectors": (count, hidden), "centre": (hidden,)}.items():
            self.register_buffer(f"{name}_bits", torch.zeros(shape, dtype=torch.int32))

    def read(self, name: str) -> Tensor:
        bits: Tensor = getattr(self, f"{name}_bits")
        return bits.view(torch.float32)

    def cosines(self, embedded: Tensor) -> Tensor:
        """(prompts, clusters) of embeddings (prompts, hidden)."""
        return normalize(embedded - self.read("centre"), dim=-1) @ normalize(self.read("centroids"), dim=-1).T


class SteeredForCausalLM(EditedForCausalLM):
    def __init__(self, config: EditedConfig) -> None:
        super().__init__(config)
        text, known = config.get_text_config(), config.edits["steering"]
        self.clusters = nn.ModuleList(Clusters(count, text.hidden_size) for count in known["clusters"])
        layers = text.num_hidden_layers
        blocks = next(each for each in self.modules() if isinstance(each, nn.ModuleList) and len(each) == layers)
        blocks[known["block"]].register_forward_hook(self._steer_output)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super()._begin(args, kwargs)
        given = dict(zip(list(signature(type(self).forward).parameters)[1:], args, strict=False)) | kwargs
        call: Any = _pass.get()
        call.mask, call.width, call.routes = given.get("attention_mask"), _whole(given).shape[1], None
        call.cache = _cache(given.values())
        call.earlier = _numbers(call.cache, self._first_place)
        if _past(given) and (call.ends is not None or call.earlier is None):
            _pass.set(None)
            raise ValueError(
                "this model is steered by what the whole prompt says, from its first token on: give a prompt in one "
                "call, with a cache that is new or that this model's own calls on this prompt have filled."
            )
        return args, kwargs

    def _end(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call: Any = _pass.get()
        _pass.set(None)
        if output is None or call is None or call.routes is None:
            return
        cache = call.cache or (_cache(output.values()) if hasattr(output, "values") else None)
        if cache is not None:
            _keep(cache, self._first_place, call.routes.float()[:, None, None].expand(-1, 1, call.width))

    def _steer_output(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call: Any = _pass.get()
        if call is None:
            raise ValueError("the decoder was called without its model, which is told what steers it.")
        states = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            routes = call.routes = self._routes(call, states)
        if not bool(routes.any()):
            return output
        clusters: Any = self.clusters
        vectors = torch.cat([each.read("vectors") for each in clusters])[(routes - 1).clamp(min=0)][:, None]
        whole = states.float()
        moved = whole - self.config.edits["steering"]["strength"] * vectors
        lengths = moved.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        turned = (moved * (whole.norm(dim=-1, keepdim=True) / lengths)).to(states.dtype)
        states = torch.where(routes[:, None, None] > 0, turned, states)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    def _routes(self, call: Any, states: Tensor) -> Tensor:
        """(rows,) the clusters that steer this pass, counted from 1; 0 for none."""
        routes = torch.zeros(len(states), dtype=torch.long, device=states.device)
        if call.earlier is not None:
            routes = call.earlier.amax((1, 2)).long().to(states.device)
        if call.ends is None:
            return routes
        ends = call.ends.to(states.device)
        rows = (ends >= 0).nonzero()[:, 0]
        prompts = _seen(call.mask, states[..., 0], 0)[rows, ends[rows]]
        embedded = _mean_states(states[rows], prompts)
        clusters: Any = self.clusters
        cosines, nearest = torch.cat([each.cosines(embedded) for each in clusters], 1).max(1)
        routes[rows] = (nearest + 1) * (cosines > self.config.edits["steering"]["threshold"])
        return routes


def _mean_states(states: Tensor, seen: Tensor) -> Tensor:
    """(rows, hidden) in float32: the mean of states where `seen`, without each row's first token unless it is alone."""
    first = seen & (seen.cumsum(1) == 1)
    counted = (seen & ~first) | (first & (seen.sum(1, keepdim=True) == 1))
    weights = counted.float() / counted.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("rw,rwh->rh", weights, states.float())
