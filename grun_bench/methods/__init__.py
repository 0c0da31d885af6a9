"""How a model is changed.

What is there: `adapters/`, `objectives`, `retain_terms` and `baselines`. How adapter and objective are trained: `make`
finds them by name, `trainer` is the whole of it, with `draws` (which rows), `step` (the loss of a batch), `batch` (what
an objective sees), `frozen` (what need not run again), `loop` (the optimiser), `checkpoints` and `monitor`. Models made
here: `finetune`, `tiny`, `made_models`. `saving` writes and reads unlearned models.
"""
