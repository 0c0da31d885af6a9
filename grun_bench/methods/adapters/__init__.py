"""Adapters: what of the model may change. One file each, and the contract in `base`.

`full` all weights, `lora` low-rank updates of the linear layers, `reft` low-rank edits of hidden states, `grun` the
same edits behind a gate; `reft-held` and `grun-held` edit every position instead of the last of the prompt. An adapter
knows nothing of objectives; its options are its constructor's keyword parameters.
"""
