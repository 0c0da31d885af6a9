"""The forms in which a model leaves. No torch, so that the command line knows them before anything is loaded."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["merged", "peft", "hf"]
FORMS: tuple[Form, ...] = get_args(Form)
