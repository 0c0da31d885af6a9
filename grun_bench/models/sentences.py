"""Models that embed sentences: texts as unit vectors, whose inner products are their cosines."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from grun_bench.core.errors import UsageError
from grun_bench.core.patches import no_bars, quiet
from grun_bench.models.places import check_whole, identity, locate, not_loaded, pinned, source_of


@dataclass(frozen=True)
class Sentences:
    """A model of sentence-transformers, and where it came from (for results)."""

    model: Any
    origin: dict[str, Any]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, dimensions) float32 vectors of length 1 of one text or more, pooled as the model's folder says.

        Of a text the model sees as many tokens as it was made for (256 of all-MiniLM-L6-v2).
        """
        embedded = self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(embedded, dtype=np.float32)


def pinned_sentences(name: str) -> str:
    """The name under which `load_sentences` finds the same model when the Hub has moved on. It is not loaded.

    Raises UsageError where sentence-transformers is not installed, ModelError for what is nowhere.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError(f"{name}: sentence embeddings need sentence-transformers: pip install 'grun-bench[sentences]'")
    return pinned(name)


def load_sentences(name: str, device: str = "cpu", keep: Literal["beginning", "end"] = "beginning") -> Sentences:
    """A sentence-embedding model by Hub id or folder, found as language models are (see `places.locate`), in fp32.

    `keep` says what it sees of a text that is too long for it. Raises what `pinned_sentences` does, and ModelError for
    a folder that is no such model.
    """
    place = locate(pinned_sentences(name))
    if isinstance(place, Path):
        check_whole(place)
    source, revision = source_of(place)
    options = revision or {"local_files_only": True}
    try:
        # it takes seconds, and on some CPUs what it imports warns of a kernel that nothing here needs
        with quiet("bitsandbytes"), no_bars():
            from sentence_transformers import SentenceTransformer

            model = SentenceTransformer(source, device=device, **options).float().eval()
            model.tokenizer.truncation_side = "left" if keep == "end" else "right"
    except Exception as error:  # whatever strangers' files make of a foreign library
        raise not_loaded(name, error) from None
    return Sentences(model, identity(name, place))
