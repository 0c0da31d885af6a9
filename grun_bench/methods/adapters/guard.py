"""Steering of what a prompt asks for: one vector a cluster of forget texts, chosen by what the prompt is about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.methods.adapters.base import Adapter, layer_index, load_tensors
from grun_bench.methods.adapters.held import seen_columns
from grun_bench.methods.adapters.state import keep_in_state
from grun_bench.models.devices import device_of
from grun_bench.models.forward import Call, current_call, decoder_layers
from grun_bench.models.kv_cache import add_numbers, numbers_of
from grun_bench.models.lm import LM
from grun_bench.models.places import other_content
from grun_bench.models.plain_calls import PlainCalls, by_name
from grun_bench.models.prompt_ends import Seen, cache_among
from grun_bench.models.sentences import Sentences, load_sentences

#: how steep the gate of records is: sigmoid(SLOPE (cosine - threshold)), so 0.5 and more where prompts are steered
SLOPE = 20.0
_ONE_CALL = (
    "this model is steered by what the whole prompt says, from its first token on: give a prompt in one call, with a "
    "cache that is new or that this model's own calls on this prompt have filled."
)


class Clusters(nn.Module):
    """The clusters of one request: `centroids` (clusters, dimensions) of the router's embeddings, from which `centre`
    (dimensions,) is taken, and `vectors` (clusters, hidden); in float32."""

    centroids: Tensor
    vectors: Tensor
    centre: Tensor

    def __init__(self, centroids: Tensor, vectors: Tensor, centre: Tensor) -> None:
        super().__init__()
        for name, value in (("centroids", centroids), ("vectors", vectors), ("centre", centre)):
            self.register_buffer(name, value.float())

    def cosines(self, embedded: Tensor) -> Tensor:
        """(prompts, clusters) of embeddings (prompts, dimensions)."""
        normalised = nn.functional.normalize
        return normalised(embedded - self.centre, dim=-1) @ normalised(self.centroids, dim=-1).T


@dataclass
class Pass:
    """A pass of the model: what it was given, its cache, the `routes` (rows, 1, columns) of earlier passes, and its own
    (rows,), each 0 for none or the number of a cluster, counted from 1."""

    seen: Seen
    cache: Cache | None
    earlier: Tensor | None
    routes: Tensor | None = None


class Guard(Adapter):
    """GUARD-IT's steering at run time (arXiv 2605.12765); nothing of it is trained.

    A prompt is embedded and compared with the centroids of all clusters of all requests. Where the largest cosine is
    above `threshold`, every token of the prompt and of what follows has, at the output of the block at depth `layer`,

        h' = (h - a v) |h| / |h - a v|

    with the cluster's vector v and a = `strength`. `router` is the Hub id or folder of a sentence-embedding model; ""
    is the model itself: the mean of a prompt's states at that block, less that of the retain prompts.

    What steers a prompt's first token is known at its last one, so a prompt has to come in one call. Which cluster it
    was lies in the cache, beside keys and values.
    """

    has_strength = True

    def __init__(
        self, *, layer: float = 0.25, strength: float = 1.0, threshold: float = 0.55, router: str = ""
    ) -> None:
        self.layer, self.strength, self.threshold, self.router = layer, strength, threshold, router
        self.requests = nn.ModuleList()
        self.sentences: Sentences | None = None
        self._lm: LM | None = None

    def attach(self, model: PreTrainedModel) -> None:
        model.requires_grad_(False)
        self._model, blocks = model, decoder_layers(model)
        self.first_layer = layer_index(self.layer, len(blocks))
        if self.router:
            self.sentences = load_sentences(self.router, str(device_of(model)), keep="end")
        self.plain_calls = PlainCalls(model, self.acts)
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        blocks[self.first_layer].register_forward_hook(self._steer_output)
        # before the one that ends a plain call
        model.register_forward_hook(self._end, with_kwargs=True, prepend=True, always_call=True)
        keep_in_state(model, self.requests)
        model.reads_whole_prompts = True

    def know(self, lm: LM) -> None:
        self._lm = lm

    def add(self, clusters: Clusters) -> None:
        """Steer away from these too."""
        self.requests.append(clusters.to(device_of(decoder_layers(self._model)[self.first_layer])))

    @property
    def clusters(self) -> list[Clusters]:
        return cast(list[Clusters], list(self.requests))

    # ---- a pass

    @property
    def _place(self) -> int:
        """The layer of a cache, beyond the model's own, that has the routes."""
        return len(decoder_layers(self._model))

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass begins. Raises UsageError where what steers it cannot be known."""
        call = current_call()
        if not self.on or call is None:
            return
        seen = Seen(by_name(model, args) | dict(kwargs))
        cache = cache_among(seen.given.values())
        earlier = numbers_of(cache, self._place)
        if seen.past() and (call.prompt_end is not None or earlier is None):
            raise UsageError(_ONE_CALL)
        call.kept = Pass(seen, cache, earlier)

    def _end(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A pass is over: its routes go where its keys and values went. One that failed leaves none."""
        call = current_call()
        kept = call.kept if call is not None else None
        if output is None or not isinstance(kept, Pass) or kept.routes is None:
            return
        cache = kept.cache
        if cache is None and hasattr(output, "values"):
            cache = cache_among(output.values())
        if cache is not None:
            width = kept.seen.whole.shape[1]
            add_numbers(cache, self._place, kept.routes.float()[:, None, None].expand(-1, 1, width))

    def _steer_output(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """A forward hook of the decoder block. Raises UsageError outside of a call of the whole model."""
        if not self.on:
            return output
        call = current_call()
        if call is None or not isinstance(call.kept, Pass):
            raise UsageError("the decoder was called without its model, which is told what steers it.")
        states = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            routes = call.kept.routes = self._routes(call, call.kept, states)
        if not routes.any():
            return output
        vectors = torch.cat([each.vectors for each in self.clusters]).to(states.device)
        turned = steered(states, vectors[(routes - 1).clamp(min=0)][:, None], self.times * self.strength)
        states = torch.where(routes[:, None, None] > 0, turned, states)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    def _routes(self, call: Call, kept: Pass, states: Tensor) -> Tensor:
        """(rows,) the clusters that steer this pass. The call is told gate logits, of the rows whose prompts end in it.

        A row has one route, in all of its columns; columns without a token have 0.
        """
        routes = torch.zeros(len(states), dtype=torch.long, device=states.device)
        if kept.earlier is not None:
            routes = kept.earlier.amax((1, 2)).long().to(states.device)
        if call.prompt_end is None:
            return routes
        rows = torch.arange(len(states)) if call.rows is None else call.rows
        rows, ends = rows.to(states.device), call.prompt_end.to(states.device)
        given = kept.seen.given
        # a prompt is what its last token sees
        mask = given.get("attention_mask")
        prompts = seen_columns(mask.to(states.device) if isinstance(mask, Tensor) else mask, states, 0)[rows, ends]
        embedded = self._embed(given.get("input_ids"), rows, prompts, states).to(states.device)
        cosines, nearest = torch.cat([each.cosines(embedded) for each in self.clusters], 1).max(1)
        call.gates[self.first_layer] = (SLOPE * (cosines - self.threshold)).to(call.prompt_end.device)
        routes[rows] = (nearest + 1) * (cosines > self.threshold)
        return routes

    def _embed(self, ids: Tensor | None, rows: Tensor, prompts: Tensor, states: Tensor) -> Tensor:
        """(prompts, dimensions) of the rows with these numbers, whose prompts are where `prompts` (rows, width) is."""
        if self.sentences is None:
            return mean_states(states[rows], prompts)
        if ids is None:
            raise UsageError("this model is steered by what prompts say: call it with input_ids.")
        ids = ids.to(prompts.device)
        return self.embed_texts([ids[row][there].tolist() for row, there in zip(rows, prompts, strict=True)])

    def embed_texts(self, prompts: Sequence[list[int]]) -> Tensor:
        """(prompts, dimensions) of prompts as token ids, by the sentence-embedding model."""
        if self.sentences is None or self._lm is None:
            raise UsageError("this model is steered by what prompts say: its tokenizer is not known yet.")
        texts = [self._lm.prompts.said(ids) for ids in prompts]
        distinct = list(dict.fromkeys(texts))
        embedded = torch.from_numpy(self.sentences.embed(distinct))
        return embedded[[distinct.index(text) for text in texts]].to(device_of(self._model))

    # ---- as an adapter

    def trainable_parameters(self) -> list[nn.Parameter]:
        return []

    def save(self, folder: Path) -> None:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.requests.state_dict().items()}
        router = {} if self.sentences is None else {"router": json.dumps(self.sentences.origin)}
        save_file(tensors, folder / "adapter.safetensors", metadata=router)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        self.attach(model)
        path = folder / "adapter.safetensors"
        tensors, width = load_tensors(path), model.config.get_text_config().hidden_size
        self._check_router(path)
        try:
            for number in range(len({name.split(".")[0] for name in tensors})):
                self.add(Clusters(*(tensors.pop(f"{number}.{name}") for name in ("centroids", "vectors", "centre"))))
        except KeyError as error:
            raise ModelError(f"{path} does not fit this model: it has no {error}.") from None
        if tensors or any(each.vectors.shape[1] != width for each in self.clusters):
            raise ModelError(f"{path} does not fit this model: its hidden states have {width} dimensions.")

    def _check_router(self, path: Path) -> None:
        """Raises ModelError where the router is not the one that the clusters were made with."""
        if self.sentences is not None:
            with safe_open(path, "pt") as file:
                stated = json.loads((file.metadata() or {}).get("router", "{}"))
            if other := other_content(self.sentences.origin, stated):
                raise ModelError(f"{self.router} is not the router that the clusters were made with: {other}.")


def mean_states(states: Tensor, seen: Tensor) -> Tensor:
    """(rows, hidden) in float32: the mean of states (rows, width, hidden) where `seen` (rows, width) is true.

    Without each row's first token, unless it is the only one: it is the same in all, and in many models its states are
    larger than all others by orders of magnitude.
    """
    first = seen & (seen.cumsum(1) == 1)
    counted = (seen & ~first) | (first & (seen.sum(1, keepdim=True) == 1))
    weights = counted.float() / counted.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("rw,rwh->rh", weights, states.float())


def steered(states: Tensor, vectors: Tensor, strength: float) -> Tensor:
    """(h - a v) |h| / |h - a v|, with the shape and the dtype of the states h."""
    whole = states.float()
    turned = whole - strength * vectors
    lengths = turned.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (turned * (whole.norm(dim=-1, keepdim=True) / lengths)).to(states.dtype)
