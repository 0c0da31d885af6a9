"""Objectives: what unlearning optimises, each one function of a lazy batch.

An objective returns the forget loss, a scalar to minimise. `retain` in its declaration names the retain term added to
it (see `retain_terms.RETAIN_TERMS`; None for no term), and `needs` what the batch must hold:

- `reference`: `reference_nll` of the forget answers (and of the alternates), computed once, before training;
- `target`: everything of the target model, from a pass beside the trained model's: `batch.forget.target.logits`;
- `idk`: refusals to the forget questions; `alternate`: other answers, sampled from the target model;
- `hidden`: hidden states at the depth of the setting `layer`;
- `retain`: a retain term must be there.

Keyword parameters are the options that `--set` overrides. An objective with state between steps is a `torch.nn.Module`:
its buffers are the state, and `weigh_retain` may replace the constant weight of the retain term.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, mse_loss

from grun_bench.core.ranges import Range, Searched, times
from grun_bench.core.registry import objective
from grun_bench.core.settings import LATER, Bound, Count, NotNegative, Positive, Share, at_least, one_of
from grun_bench.methods.alternates import REQUESTS
from grun_bench.methods.retain_terms import Positions

if TYPE_CHECKING:
    from grun_bench.methods.batch import Side, UnlearningBatch

#: where preferences over sums of log-probabilities are searched
PREFERENCE: Searched = {"beta": Range(0.03, 1, log=True), "retain_weight": times(0.1, 10)}


# --- gradient ascent and its weightings -------------------------------------------------------------------------------


@objective("ga")
def ga(batch: UnlearningBatch) -> Tensor:
    """Gradient ascent: minus the forget set's cross-entropy (TOFU, arXiv 2401.06121, sec. 4)."""
    return -batch.forget.cross_entropy


@objective("gd", retain="ce")
def gd(batch: UnlearningBatch) -> Tensor:
    """Gradient difference: gradient ascent with a retain term (Liu et al. 2022; TOFU, arXiv 2401.06121, sec. 4)."""
    return -batch.forget.cross_entropy


@objective("kl", retain="kl")
def kl(batch: UnlearningBatch) -> Tensor:
    """KL minimisation: gradient ascent, with KL(p0 || p) on the retain set (TOFU, arXiv 2401.06121, sec. 4)."""
    return -batch.forget.cross_entropy


@objective("wga", retain="ce", searched={"beta": Range(0.2, 5, log=True), "retain_weight": times(0.1, 10)})
def wga(batch: UnlearningBatch, *, beta: NotNegative = 1.0) -> Tensor:
    """Weighted gradient ascent: each token by its probability p^beta (WGA, arXiv 2502.19301).

    mean p^beta log p, the weight without gradient: tokens that are forgotten already stop pushing.
    """
    weight = (-batch.forget.token_nll.detach()).exp() ** beta
    return -(weight * batch.forget.token_nll).mean()


@objective("satimp", retain="ce", searched={"beta1": Range(1, 10), "retain_weight": times(0.1, 10)})
def satimp(batch: UnlearningBatch, *, beta1: NotNegative = 5.0, beta2: NotNegative = 1.0) -> Tensor:
    """Gradient ascent weighted by saturation and importance, p^beta1 (1 - p)^beta2 (SatImp, arXiv 2505.11953).

    The weights are without gradient.
    """
    probability = (-batch.forget.token_nll.detach()).exp()
    return -(probability**beta1 * (1 - probability) ** beta2 * batch.forget.token_nll).mean()


# --- preferences ------------------------------------------------------------------------------------------------------


@objective("npo", retain="ce", needs=("reference",), searched=PREFERENCE)
def npo(batch: UnlearningBatch, *, beta: Positive = 0.1) -> Tensor:
    """Negative preference optimisation (arXiv 2404.05868, eq. 3), with log-probabilities summed over the answer.

    -(2 / beta) mean log sigmoid(-beta log(p / p0)), where p0 is the target model.
    """
    log_ratio = batch.forget.reference_nll - batch.forget.nll
    return -2 / beta * logsigmoid(-beta * log_ratio).mean()


@objective("simnpo", retain="ce", searched={"beta": Range(1, 10, log=True), "retain_weight": times(0.1, 10)})
def simnpo(batch: UnlearningBatch, *, beta: Positive = 4.5, delta: float = 0.0) -> Tensor:
    """NPO without a reference: the answer's mean token loss takes its place (SimNPO, arXiv 2410.07163).

    -(2 / beta) mean log sigmoid(beta (NLL / |y| - delta)), `delta` being the paper's margin gamma.
    """
    return -2 / beta * logsigmoid(beta * (batch.forget.nll / batch.forget.lengths - delta)).mean()


@objective("dpo", retain="ce", needs=("reference", "idk", "target"), searched=PREFERENCE)
def dpo(batch: UnlearningBatch, *, beta: Positive = 0.1) -> Tensor:
    """Preference optimisation: a refusal preferred to the answer (DPO, arXiv 2305.18290, eq. 7; TOFU, 2401.06121)."""
    return _preference(batch.idk, batch.forget, beta)


@objective("altpo", retain="ce", needs=("reference", "alternate"), searched=PREFERENCE)
def altpo(
    batch: UnlearningBatch,
    *,
    beta: Positive = 0.1,
    alternates: Count = 5,
    temperature: Positive = 1.0,
    request: Annotated[str, one_of(*REQUESTS), LATER] = "llama-2",
    new_tokens: Annotated[int, at_least(0), LATER] = 0,
) -> Tensor:
    """Alternate preference optimisation: another plausible answer preferred to the answer (AltPO, arXiv 2409.13474).

    The target model itself writes `alternates` other answers to each question, sampled at `temperature` before
    training (see `sample_alternates`); each step takes one of them, as the recipe's `others` says.
    """
    return _preference(batch.alternate, batch.forget, beta)


def _preference(better: Side, worse: Side, beta: float) -> Tensor:
    """-(2 / beta) mean log sigmoid(beta (log(p / p0) of `better` - log(p / p0) of `worse`)), sums over each answer.

    DPO's loss with NPO's factor 2 / beta in place of 1, as TOFU's and AltPO's code have it.
    """
    margin = (better.reference_nll - better.nll) - (worse.reference_nll - worse.nll)
    return -2 / beta * logsigmoid(beta * margin).mean()


# --- other distributions over the next token --------------------------------------------------------------------------


@objective("idk", retain="ce", needs=("idk",))
def idk(batch: UnlearningBatch) -> Tensor:
    """Refusal training: cross-entropy of an "I don't know" answer (TOFU, arXiv 2401.06121, sec. 4)."""
    return batch.idk.cross_entropy


@objective("undial", needs=("target",), searched={"beta": Range(2, 30, log=True), "warmup": Range(0, 0.5)})
def undial(batch: UnlearningBatch, *, beta: NotNegative = 10.0) -> Tensor:
    """Self-distillation with adjusted logits: the answer's token loses beta (UNDIAL, arXiv 2402.10052).

    Cross-entropy of p to softmax(z0 - beta 1_y), z0 being the target model's logits; mean over answer tokens. The
    paper has no retain term.
    """
    rows = torch.arange(len(batch.forget.batch.targets), device=batch.forget.logits.device)
    adjusted = batch.forget.target.logits.clone()
    adjusted[rows, batch.forget.batch.targets] -= beta
    return cross_entropy(batch.forget.logits, adjusted.softmax(-1))


@objective("ceu")
def ceu(batch: UnlearningBatch, *, skip: Annotated[int, at_least(0)] = 1) -> Tensor:
    """Cross-entropy to the model's own distribution without the answer's token (CE-U, arXiv 2503.01224).

    Cross-entropy of p to softmax(z with z_y = -inf), without gradient through the latter; mean over answer tokens but
    the first `skip` of each answer. The paper has no retain term.
    """
    side = batch.forget
    others = side.logits.detach().scatter(1, side.batch.targets[:, None], float("-inf")).softmax(-1)
    return cross_entropy(side.logits, others, reduction="none")[side.places >= skip].mean()


@objective("jensun", retain="js")
def jensun(batch: UnlearningBatch, *, refusal: Annotated[str, Bound("some words", str.strip)] = "No idea") -> Tensor:
    """Jensen-Shannon divergence to a refusal, repeated over the answer's length (JensUn, arXiv 2509.02820).

    JSD(p, one-hot of refusal token t mod n) in nats at the t-th answer token, given the forget answer so far; mean over
    answer tokens. With all mass of the target on one token of probability p, the divergence is closed in p:
    (1/2) (p log p - (1 + p) log(1 + p)) + log 2. The retain term is the divergence from the target model.

    The authors' code (nmndeep/JensUn-Unlearning @ 925e221) marks every refusal token at every position, the question's
    too, so that its target sums to 2; here it is the distribution of the paper, at the answer's positions.
    """
    tokens = torch.tensor(batch.tokens(refusal), device=batch.forget.logits.device)
    wanted = tokens[batch.forget.places % len(tokens)]
    log_p = -cross_entropy(batch.forget.logits, wanted, reduction="none")
    p = log_p.exp()
    return (p * log_p - (1 + p) * p.log1p()).mean() / 2 + math.log(2)


@objective(
    "pdu",
    retain="ce",
    needs=("retain",),
    searched={"retain_limit": Range(0.03, 3, log=True), "dual_step": Range(0.5, 50, log=True)},
)
class PrimalDual(nn.Module):
    """Flat logits under a constraint on the retain loss, by primal-dual steps (PDU, arXiv 2506.05314).

    Forget loss: (max_v z_v - mean_v z_v)^2, mean over answer tokens. Constraint: retain loss <= `retain_limit`, to be
    set a little above the target model's own. Its multiplier begins at `retain_weight` and, once `dual_warmup` of the
    training is over, moves each step by `dual_step` times the excess of the retain loss, never below zero.
    """

    #: () float64, how far the multiplier is from `retain_weight`
    raised: Tensor

    def __init__(
        self, *, retain_limit: NotNegative = 0.3, dual_step: NotNegative = 5.0, dual_warmup: Share = 0.5
    ) -> None:
        super().__init__()
        self.retain_limit, self.dual_step, self.dual_warmup = retain_limit, dual_step, dual_warmup
        self.register_buffer("raised", torch.zeros((), dtype=torch.float64))

    def forward(self, batch: UnlearningBatch) -> Tensor:
        logits = batch.forget.logits
        return (logits.amax(-1) - logits.mean(-1)).square().mean()

    def weigh_retain(self, loss: Tensor, weight: float, progress: float) -> Tensor:
        """The Lagrangian's retain part, multiplier x (loss - limit); then the multiplier's own step."""
        excess, multiplier = loss - self.retain_limit, weight + self.raised.item()
        if progress >= self.dual_warmup:
            self.raised.fill_(max(-weight, self.raised.item() + self.dual_step * excess.item()))
        return multiplier * excess


# --- hidden states ----------------------------------------------------------------------------------------------------


@objective(
    "rmu",
    retain="hidden",
    needs=("hidden",),
    searched={"steering": times(0.2, 5), "retain_weight": times(0.1, 10)},
)
def rmu(
    batch: UnlearningBatch, *, layer: float = 0.22, positions: Positions = "predicting", steering: NotNegative = 6.5
) -> Tensor:
    """Representation misdirection: forget states to a random direction (RMU, arXiv 2403.03218, sec. 4).

    ||h - c u||^2, mean over tokens and dimensions, where h is the output of decoder block `layer` (a depth; 0.22 of 32
    is block 7, the paper's), u a unit vector with uniform random entries, the same in all steps, and c `steering`. The
    retain term `hidden` is the rest of the paper's loss; `retain_weight` is its alpha.

    `positions` are `predicting`, those that predict an answer token, which begin with the last prompt token, or
    `answer`, those of the answer tokens themselves. GRUN's code reads `hidden_states[31]` of 32 blocks at the latter:
    that is the output of block 30, which an edit of block 31 cannot change, so the last edit gets no gradient, and no
    edit of the last block ever reaches a later position. With `layer` 1.0 and `predicting`, which are the defaults of
    `grun+rmu`, the states include the edited position of the last block, and every edit is trained. `layer=30
    positions=answer` is the official variant.
    """
    states = batch.forget.hidden(layer, positions)
    generator = torch.Generator().manual_seed(batch.seed)
    direction = torch.rand(states.shape[-1], generator=generator).to(states.device)
    return mse_loss(states, (steering * direction / direction.norm()).expand_as(states))
