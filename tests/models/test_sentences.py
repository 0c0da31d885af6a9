"""Sentence embeddings against transformers alone: hidden states, their mean over the text's tokens, its length 1."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_models import write_model
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.models.names import folder_of
from grun_bench.models.places import identity, other_content
from grun_bench.models.sentences import Sentences, load_sentences

pytest.importorskip("sentence_transformers", reason="the extra `sentences` is not installed")

NAME = "org/small-sentences"
#: the published model, where a mirror has it
REAL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["Where was Basil Mahfouz Al-Kuwaiti born?", "Two and two?", "Two and two? " * 30, ""]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    write_model(folder / NAME, tokenizer)
    return folder


@pytest.fixture(scope="module")
def small(mirror: Path) -> Sentences:
    return load_sentences(str(mirror / NAME))


@torch.no_grad()
def by_transformers(folder: Path, text: str, length: int) -> np.ndarray:
    """The mean of a text's last hidden states, of length 1, of the text by itself."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    given = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
    mean = model(**given).last_hidden_state[0].mean(0)
    return torch.nn.functional.normalize(mean, dim=0).numpy()


def test_embeddings_are_mean_hidden_states_of_length_one(mirror: Path, small: Sentences) -> None:
    """A long text is cut at 64 tokens; an empty one is its special tokens; those beside a text change nothing."""
    expected = np.stack([by_transformers(mirror / NAME, text, 64) for text in TEXTS])
    np.testing.assert_allclose(small.embed(TEXTS), expected, atol=1e-6)


def test_of_a_long_text_the_end_is_kept_where_it_is_asked_for(mirror: Path, small: Sentences) -> None:
    """The last 64 tokens, a beginning of sequence among them, in place of the first."""
    ending = load_sentences(str(mirror / NAME), keep="end")
    text = "Two and two? " * 30
    np.testing.assert_allclose(ending.embed([text]), small.embed([text[-63:]]), atol=1e-6)
    np.testing.assert_allclose(ending.embed(TEXTS[:2]), small.embed(TEXTS[:2]), atol=1e-6)


def test_the_folder_says_how_texts_are_pooled(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, small: Sentences
) -> None:
    write_model(tmp_path / "other", tokenizer, "cls_token")
    other = load_sentences(str(tmp_path / "other"))
    # every text has the same first token, but sees others from there
    assert np.abs(other.embed(TEXTS) - small.embed(TEXTS)).max() > 0.1
    # so it is another model, though the folders' own files are the same; an origin of before says nothing of modules
    assert other.origin["sha256"] == small.origin["sha256"]
    assert "modules_sha256" in str(other_content(other.origin, small.origin))
    before = {key: value for key, value in small.origin.items() if key != "modules_sha256"}
    assert other_content(small.origin, before) is None
    (tmp_path / "other" / "1_Pooling" / "README.md").write_text("About pooling.")
    assert identity("other", tmp_path / "other")["modules_sha256"] == other.origin["modules_sha256"]


@settings(max_examples=10, deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=6), data=st.data())
def test_a_text_has_its_embedding_in_any_company(small: Sentences, texts: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    whole, mixed = small.embed(texts), small.embed([texts[place] for place in order])
    assert whole.shape[0] == len(texts) and whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=-1), 1, atol=1e-6)
    for row, place in enumerate(order):
        np.testing.assert_allclose(mixed[row], whole[place], atol=1e-5)


def test_models_are_found_in_mirrors_and_say_what_they_are(
    mirror: Path, small: Sentences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRUN_BENCH_HUB", f"/nowhere:{mirror}")
    found = load_sentences(NAME)
    np.testing.assert_array_equal(found.embed(TEXTS), small.embed(TEXTS))
    assert found.origin["name"] == NAME and found.origin["sha256"] == small.origin["sha256"]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_sentences(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no weights"):
        load_sentences(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_sentences(str(tmp_path))
    # as where it is not installed
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'grun-bench\[sentences\]'"):
        load_sentences(NAME)


def test_the_published_model_knows_what_is_near() -> None:
    if (folder := folder_of(REAL)) is None:
        pytest.skip(f"{REAL} is in no folder of GRUN_BENCH_HUB")
    texts = ["Where was Basil born?", "What is the birthplace of Basil?", "How many legs does a cow have?"]
    embedded = load_sentences(REAL).embed(texts)
    np.testing.assert_allclose(embedded, [by_transformers(folder, text, 256) for text in texts], atol=1e-6)
    cosines = embedded @ embedded.T
    assert cosines[0, 1] > 0.6 > 0.3 > cosines[0, 2]
