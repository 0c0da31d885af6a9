"""How far a model is from the one that it was made of: their next-token distributions on the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from grun_bench.core import processes
from grun_bench.models.batch import collate
from grun_bench.models.forward import evaluating, forward
from grun_bench.models.lm import LM
from grun_bench.models.protocols import prompts_under
from grun_bench.models.scoring import Example, encoded

#: the score of a record that holds the divergence of its answer
KL = "kl_to_target"


class Target:
    """What the target model says of some examples, kept from when it is there: it and the unlearned model never are at
    the same time. Of each answer's tokens the whole distribution, in float32 on the CPU. Of several processes each has
    examples of its own.
    """

    def __init__(self, examples: Sequence[Example], protocol: str) -> None:
        self.examples, self.protocol = examples, protocol
        self._kept: list[Tensor] | None = None

    def keep(self, lm: LM) -> None:
        """The target model is here, and as it is."""
        if self._kept is None:
            self._kept = list(self._distributions(lm))

    def divergences(self, lm: LM) -> dict[tuple[str, int], float]:
        """By set and index KL(p0 || p), in nats a token, of an example's answer; nothing where no target was kept.

        p0 is the target model's distribution of the next token and p this one's, each given the same text; the mean
        over the answer's tokens. Raises ValueError for a model with another vocabulary.
        """
        found = {}
        for row, kept, now in zip(
            processes.own(self.examples), self._kept or (), self._distributions(lm), strict=False
        ):
            if kept.shape != now.shape:
                raise ValueError(
                    f"the target model's vocabulary has {kept.shape[1]} tokens, this model's {now.shape[1]}"
                )
            found[row.set, row.index] = float((kept.exp() * (kept - now)).sum(-1).double().mean().clamp_min(0))
        return processes.merged(found)

    @torch.no_grad()
    def _distributions(self, lm: LM) -> Iterator[Tensor]:
        """Of each example (tokens of its answer, vocabulary) log probabilities."""
        forms = {
            template: prompts_under(self.protocol, lm, template) for template in {row.prompt for row in self.examples}
        }
        with evaluating(lm.model):
            for row in processes.own(self.examples):
                batch = collate(encoded(forms[row.prompt], row, [row.answer]), lm.pad_id).to(lm.device)
                yield torch.log_softmax(forward(lm.model, batch).logits.float(), -1).cpu()
