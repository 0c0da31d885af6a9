"""Low-rank updates of the linear layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from torch import nn
from transformers import PreTrainedModel

from grun_bench.core.errors import Refused, UsageError
from grun_bench.core.patches import quiet_peft
from grun_bench.core.registry import adapter
from grun_bench.core.settings import Count, Positive, within
from grun_bench.methods.adapters.base import Adapter, load_tensors
from grun_bench.models.devices import is_offloaded, is_spread, standing_in
from grun_bench.models.quantised import is_quantised


@adapter("lora")
class Lora(Adapter):
    """Low-rank updates of the linear layers (LoRA, arXiv 2106.09685), through peft.

    Defaults are the baseline of the GRUN paper's code: rank 4, alpha 32, dropout 0.05, all linear layers but the
    vocabulary head.
    """

    merges = True
    beside_linears = True
    has_strength = True

    def __init__(
        self, *, rank: Count = 4, alpha: Positive = 32.0, dropout: Annotated[float, within(0, 0.99)] = 0.05
    ) -> None:
        self.rank, self.alpha, self.dropout = rank, alpha, dropout

    def attach(self, model: PreTrainedModel) -> None:
        import torch.distributed.tensor  # noqa: F401  (peft 0.21 reads it without importing it)

        # peft divides alpha by the rank, so it need not be the whole number that its type says
        options: dict[str, Any] = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        try:
            with quiet_peft(), standing_in(model):
                from peft import LoraConfig, get_peft_model

                self.peft = get_peft_model(model, LoraConfig(**options, target_modules="all-linear"))
        except ValueError as error:
            if "lora_dropout" not in str(error):
                raise
            raise Refused(
                f"lora: peft knows no dropout for the experts of {type(model).__name__}. Use --set dropout=0."
            ) from None

    def save(self, folder: Path) -> None:
        self.peft.save_pretrained(str(folder), safe_serialization=True)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        import torch.distributed.tensor  # noqa: F401

        # by its own loader a pickle would be read where the safetensors are missing
        tensors = load_tensors(folder / "adapter_model.safetensors")
        with quiet_peft():
            from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict

            if not is_spread(model):
                self.peft = PeftModel.from_pretrained(model, folder)
                return
            # by its own loader a spread model would be spread anew
            with standing_in(model):
                self.peft = get_peft_model(model, LoraConfig.from_pretrained(folder))
            set_peft_model_state_dict(self.peft, tensors)

    def save_plain(self, model: PreTrainedModel, *args: Any, **options: Any) -> None:
        """The weights with the updates added, which takes a copy of the model in memory."""
        if is_offloaded(model):
            raise UsageError("weights of this model lie in host memory or in files: write it from one that is whole.")
        if is_quantised(model):
            raise UsageError(
                "the updates of lora cannot be added to quantised weights without losing some: write the model with "
                "another base, as grun_bench.load(DIR) finds it."
            )
        merged = copy.deepcopy(self.peft).merge_and_unload()
        type(merged).save_pretrained(merged, *args, **options)

    def trainable_parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.peft.named_parameters() if "lora_" in name]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        from peft.helpers import rescale_adapter_scale

        with rescale_adapter_scale(self.peft, float(strength)):
            yield
