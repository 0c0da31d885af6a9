"""What is changed of foreign libraries, for as long as a block runs: each a context manager that puts it back.

All of it is here, where every room may use it: prompts and passes of models need some, a run and the lm-eval bridge the
rest. Each says what it was written for and why no setting of the library does;
tests/core/test_patches.py fails when what is changed has moved. No library is imported until its block is entered.
"""

from __future__ import annotations

import datetime
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from grun_bench.core.environment import mirrors
from grun_bench.core.local_data import cached_by_content

if TYPE_CHECKING:
    from torch import nn

#: where the Hugging Face libraries keep what they have read from HF_HUB_OFFLINE: huggingface_hub 0.36 and 2.4,
#: datasets 5.0 and 5.2, transformers 4.45 (5 asks huggingface_hub)
HUB_SWITCHES = {
    "huggingface_hub.constants": "HF_HUB_OFFLINE",
    "datasets.config": "HF_HUB_OFFLINE",
    "transformers.utils.hub": "_is_offline_mode",
}


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[Any]:
    """Within this block the attribute has this value; yields the value before. Raises AttributeError without one."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield before
    finally:
        setattr(owner, name, before)


@contextmanager
def quiet(logger: str, level: str = "ERROR") -> Iterator[None]:
    """Within this block a library's logger says nothing below this level."""
    import logging

    named = logging.getLogger(logger)
    before = named.level
    named.setLevel(level)
    try:
        yield
    finally:
        named.setLevel(before)


# --- Hugging Face: the Hub --------------------------------------------------------------------------------------------


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Within this block, where the Hub's name does not resolve, its libraries use their cache: no minutes of retries.

    They read HF_HUB_OFFLINE when they are imported, so those that are imported already are told too. A setting of the
    user's own is left alone.
    """
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    if {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} & os.environ.keys() or _resolves(host):
        yield
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    before = _switch_hub(dict.fromkeys(HUB_SWITCHES, True))
    try:
        yield
    finally:
        del os.environ["HF_HUB_OFFLINE"]
        # what was imported in the meantime has read the environment of the block
        _switch_hub(dict.fromkeys(HUB_SWITCHES, False) | before)


def _resolves(host: str | None) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _switch_hub(values: dict[str, bool]) -> dict[str, bool]:
    """Set the switches of the modules that are imported; returns what they were."""
    before = {}
    for module, name in HUB_SWITCHES.items():
        if hasattr(sys.modules.get(module), name):
            before[module] = getattr(sys.modules[module], name)
            setattr(sys.modules[module], name, values[module])
    # huggingface_hub 0.36 keeps sessions, which remember the switch; 2.4 asks it for every request
    reset = getattr(sys.modules.get("huggingface_hub.utils._http"), "reset_sessions", None)
    if reset:
        reset()
    return before


@contextmanager
def no_dataset_bars() -> Iterator[None]:
    """Within this block `datasets` (5.0, 5.2) shows no bars. Its own switch, which it keeps for the process."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


@contextmanager
def mirrored_datasets() -> Iterator[None]:
    """Within this block `datasets.load_dataset` (5.0, 5.2) looks in the folders of GRUN_BENCH_HUB first.

    lm-eval 0.4.13 loads the data sets of its tasks by Hub id, through the module's attribute. The Hub has what a
    mirror's copy lacks.
    """
    import datasets

    with replaced(datasets, "load_dataset", _mirrored(datasets.load_dataset)):
        yield


def _mirrored(load: Callable[..., Any]) -> Callable[..., Any]:
    def from_mirror(path: str, name: str | None = None, *args: Any, **options: Any) -> Any:
        folder = next((mirror / path for mirror in mirrors() if (mirror / path).is_dir()), None)
        if folder is not None:
            try:
                parts = {key: options[key] for key in ("data_dir", "data_files") if key in options}
                kept = {key: options[key] for key in options if key != "revision"}
                return load(str(folder), name, *args, **kept | cached_by_content(folder, name, **parts))
            except ValueError as error:
                if "BuilderConfig" not in str(error):
                    raise
        return load(path, name, *args, **options)

    return from_mirror


# --- transformers -----------------------------------------------------------------------------------------------------


@contextmanager
def template_clock(date: datetime.datetime) -> Iterator[None]:
    """Within this block it is `date` for chat templates that ask `strftime_now`.

    transformers (4.45, 5.24) defines that function inside of the one that compiles templates, from the module's
    `datetime`; a caller cannot give another.
    """
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return date

    with replaced(chat_template_utils, "datetime", Clock):
        yield


@contextmanager
def no_bars() -> Iterator[None]:
    """Within this block transformers shows no bars while it reads and writes weights.

    5.24 shows them without a terminal too; its own `disable_progress_bar` would hide those of downloads as well.
    """
    from transformers.utils import logging

    with replaced(logging, "_tqdm_active", False):
        yield


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Within this block peft (0.21) reads models of transformers 5.24 without the warnings that this gives.

    It asks by a deprecated name whether activations are checkpointed, and imports bitsandbytes, which on some CPUs
    warns of a kernel that it lacks; nothing here needs one.
    """
    import warnings

    with quiet("bitsandbytes"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


@contextmanager
def any_generation_config() -> Iterator[None]:
    """Within this block transformers saves how a model generates, whatever it says.

    4.45 refuses some of what it loads, as Llama 2's temperature without sampling; 5.24 does where it was changed since.
    """
    from transformers import GenerationConfig

    with replaced(GenerationConfig, "validate", lambda config, *args, **options: None):
        yield


@contextmanager
def shared_key_heads(model: nn.Module) -> Iterator[bool]:
    """Within this block attention gets keys and values that query heads share as they are; yields whether any do.

    The attention modules of transformers (4.45, 5.24) repeat them `num_key_value_groups` times before they call torch's
    scaled dot-product attention, which for a decoding step costs more than the attention. Told that there is nothing to
    repeat, they hand over fewer key heads than query heads: what takes the call must know how to read them.
    """
    modules: list[Any] = [module for module in model.modules() if getattr(module, "num_key_value_groups", 1) > 1]
    counts = [module.num_key_value_groups for module in modules]
    for module in modules:
        module.num_key_value_groups = 1
    try:
        yield bool(modules)
    finally:
        for module, count in zip(modules, counts, strict=True):
            module.num_key_value_groups = count


# --- lm-eval ----------------------------------------------------------------------------------------------------------


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Within this block lm-eval (0.4.13) says nothing below an error and shows no bar while it builds requests.

    It warns of every model that is loaded already, and its tasks' bar, which no option turns off, would stand between
    ours. Its models have bars of their own, with an option.
    """
    from lm_eval.api import task

    with quiet("lm_eval"), replaced(task, "tqdm", partial(task.tqdm, disable=True)):
        yield
