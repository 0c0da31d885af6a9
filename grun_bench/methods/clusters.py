"""Clusters of forget texts, and the vector that steers away from each (GUARD-IT, arXiv 2605.12765)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grun_bench.methods.adapters.guard import Clusters, Guard, mean_states
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.forward import evaluating, forward, truncated
from grun_bench.models.lm import LM, Pairs


@dataclass
class Activations:
    """Of each text: the mean of its tokens' states at the steered block, (texts, hidden), and of their norms, (texts,);
    and what the router makes of its prompt, (texts, dimensions)."""

    means: Tensor
    norms: Tensor
    embedded: Tensor


@torch.no_grad()
def activations(lm: LM, guard: Guard, rows: Pairs, batch_size: int) -> Activations:
    """What the model that is not steered makes of texts; of a plain text the router gets all."""
    texts = [
        each if question else Encoded(each.prompt + each.answer[:-1], each.answer[-1:])
        for (question, _), each in zip(rows, lm.encoded(rows), strict=True)
    ]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    parts = []
    # no later block decides what a block gives
    with evaluating(lm.model), guard.disabled(), truncated(lm.model, guard.first_layer + 1):
        for start in range(0, len(order), batch_size):
            parts.append(_of_batch(lm, guard, [texts[place] for place in order[start : start + batch_size]]))
    back = torch.tensor(order).argsort()
    means, norms, embedded = (torch.cat(part)[back.to(part[0].device)] for part in zip(*parts, strict=True))
    return Activations(means, norms, embedded)


def _of_batch(lm: LM, guard: Guard, texts: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    batch = collate(texts, lm.pad_id).to(lm.device)
    states = forward(lm.model, batch, (guard.first_layer,), head=False).hidden[guard.first_layer].to(lm.device)
    whole = batch.attention_mask.bool()
    norms = mean_states(states.float().norm(dim=-1, keepdim=True), whole)[:, 0]
    if guard.sentences is not None:
        return mean_states(states, whole), norms, guard.embed_texts([text.prompt for text in texts])
    prompts = whole & (torch.arange(whole.shape[1], device=whole.device) <= batch.prompt_end[:, None])
    return mean_states(states, whole), norms, mean_states(states, prompts)


def clusters_of(
    forget: Activations, retain: Activations, centred: bool, counts: tuple[int, int], seed: int
) -> Clusters:
    """The clusters of a request's forget texts, from `counts[0]` to `counts[1]` of them, with their vectors.

    `centred` says whether the router's embeddings are taken from the mean of the retain prompts'.
    """
    centre = retain.embedded.mean(0) if centred else torch.zeros_like(forget.embedded[0])
    embedded = torch.nn.functional.normalize(forget.embedded - centre, dim=-1)
    labels = torch.from_numpy(k_means(embedded.cpu().numpy(), *counts, seed)).to(embedded.device)
    chosen = [labels == label for label in labels.unique()]
    across = retain.means.mean(0)
    vectors = [steering_vector(forget.means[each], forget.norms[each], across) for each in chosen]
    return Clusters(torch.stack([embedded[each].mean(0) for each in chosen]), torch.stack(vectors), centre)


def k_means(embedded: np.ndarray, fewest: int, most: int, seed: int) -> np.ndarray:
    """(texts,) the cluster of each of (texts, dimensions): k-means with the number of clusters, from `fewest` to
    `most`, whose silhouette (Rousseeuw 1987) is the largest; a single one of texts too few to choose."""
    from sklearn.cluster import KMeans  # takes a second
    from sklearn.metrics import silhouette_score

    # a silhouette needs more texts than clusters
    counts = range(fewest, min(most, len(np.unique(embedded, axis=0)) - 1) + 1)
    tried = [KMeans(count, n_init=10, random_state=seed).fit_predict(embedded).astype(np.int64) for count in counts]
    return max(tried, key=lambda labels: silhouette_score(embedded, labels), default=np.zeros(len(embedded), np.int64))


def steering_vector(means: Tensor, norms: Tensor, retain: Tensor) -> Tensor:
    """(hidden,) a cluster's mean state, of texts (texts, hidden), less its projection on the mean state of the retain
    texts, with the mean norm (texts,) of its tokens' states as its length."""
    mean = means.mean(0)
    apart = mean - (mean @ retain) / (retain @ retain) * retain
    return apart / apart.norm() * norms.mean()
