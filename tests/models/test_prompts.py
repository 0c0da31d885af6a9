"""Prompts: both styles, tokenised apart from the answers, and no date of today."""

from __future__ import annotations

import copy
import datetime
from pathlib import Path

import pytest
import transformers.utils.chat_template_utils as chat_template_utils
from transformers import PreTrainedTokenizerBase

from grun_bench.core.errors import DataError
from grun_bench.models.batch import Encoded, collate, collate_prompts
from grun_bench.models.lm import Prompts

PLAIN = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[me]{% endif %}"
)
#: Llama 3.2's way: today by `strftime_now` unless a date is given
LLAMA = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}'
    "{% endif %}{% endif %}"
    "Today is {{ date_string }}." + PLAIN
)
#: a template that asks for the clock whatever it is given
CLOCK = 'It is {% if strftime_now is defined %}{{ strftime_now("%d %B %Y") }}{% else %}unknown{% endif %}.' + PLAIN


class Tomorrow(datetime.datetime):
    """A clock far from today."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Tomorrow:
        return cls(2071, 3, 4, 5, 6, 7)


def chat(tokenizer: PreTrainedTokenizerBase, template: str) -> Prompts:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return Prompts(tokenizer, "chat")


def test_qa_is_the_papers_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(tokenizer, "qa")
    assert prompts.text("Who?") == "Question: Who?\nAnswer:"
    ids = prompts.prompt("Who?")
    assert ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in ids[1:]
    assert tokenizer.decode(ids[1:]) == "Question: Who?\nAnswer:"
    # the last prompt token, where GRUN edits, is the colon
    assert tokenizer.decode(ids[-1:]) == ":"


def test_answer_ends_with_the_end_of_sequence(tokenizer: PreTrainedTokenizerBase) -> None:
    for prompts, start in ((Prompts(tokenizer, "qa"), " "), (chat(tokenizer, PLAIN), "")):
        ids = prompts.answer("Ada Bo.")
        assert ids[-1] == tokenizer.eos_token_id and tokenizer.bos_token_id not in ids
        assert tokenizer.decode(ids[:-1]) == start + "Ada Bo."


def test_prompt_and_answer_are_tokenised_apart() -> None:
    """A tokenizer that would merge over the border: the prompt's tokens are the same whatever the answer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "]A"]
    core = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(letters)}, merges=[("]", "A")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merging = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    prompts = chat(merging, PLAIN)
    joined = merging(prompts.text("Who?") + "Ada").input_ids
    encoded = prompts.encode("Who?", "Ada")
    assert letters.index("]A") in joined
    assert letters.index("]A") not in encoded.prompt + encoded.answer
    assert encoded.prompt == prompts.prompt("Who?") == prompts.encode("Who?", "Zoe").prompt


def test_chat_prompt_is_the_template_with_its_own_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = chat(tokenizer, "<bos>" + PLAIN)
    assert prompts.text("Who?") == "<bos>[user]Who?[me]"
    ids = prompts.prompt("Who?")
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("template", [LLAMA, CLOCK])
def test_no_date_from_today(tokenizer: PreTrainedTokenizerBase, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = chat(tokenizer, template)
    text = prompts.text("Who?")
    assert str(datetime.date.today().year) not in text
    ids = prompts.prompt("Who?")
    faked = [
        (module, name)
        for module in (datetime, chat_template_utils)
        for name in ("datetime",)
        if isinstance(getattr(module, name, None), type)
    ]
    for module, name in faked:
        monkeypatch.setattr(module, name, Tomorrow)
    # transformers keeps compiled templates, not what they printed
    assert chat(tokenizer, template).text("Who?") == text
    assert chat(tokenizer, template).prompt("Who?") == ids
    messages = [{"role": "user", "content": "Who?"}]
    today = prompts.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if "unknown" not in today and "26 Jul 2024" not in today:
        # the clock is the faked one where the template is asked in the ordinary way: the test can fail
        assert "2071" in today or str(datetime.date.today().year) in today


def test_a_date_string_is_not_lost(tokenizer: PreTrainedTokenizerBase) -> None:
    assert "Today is 26 Jul 2024." in chat(tokenizer, LLAMA).text("Who?")


def test_collate_keeps_what_belongs_together() -> None:
    batch = collate([Encoded([5, 6, 7], [8, 1]), Encoded([9], [4, 3, 2, 1])], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 1], [9, 4, 3, 2, 1]]
    assert batch.labels.tolist() == [[-100, -100, -100, 8, 1], [-100, 4, 3, 2, 1]]
    assert batch.prompt_end.tolist() == [2, 0]
    assert batch.scored.tolist() == [[False, False, True, True, False], [True, True, True, True, False]]
    assert batch.targets.tolist() == [8, 1, 4, 3, 2, 1]
    ids, mask = collate_prompts([[5, 6, 7], [9]], pad_id=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 9]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_real_templates_print_no_year_of_today(shared: Path) -> None:
    """Every chat template that lies in the folder of published data."""
    from transformers import AutoTokenizer

    folders = sorted({path.parent for path in shared.rglob("tokenizer_config.json")})
    templates = []
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.chat_template:
            templates.append((folder, Prompts(tokenizer, "chat")))
    if not templates:
        pytest.skip(f"no chat template in {shared}")
    for folder, prompts in templates:
        assert str(datetime.date.today().year) not in prompts.text("Who?"), folder


@pytest.mark.parametrize(("share", "length"), [(0.0, 512), (0.8, 512), (0.8, 10), (0.5, 3)])
def test_texts_are_cut_and_split_at_a_share_of_their_tokens(tokenizer, share: float, length: int) -> None:  # type: ignore[no-untyped-def]
    text = "A text of one token a byte."
    encoded = Prompts(tokenizer, "qa").encode_text(text, share, length)
    kept = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids][:length]
    assert encoded.prompt + encoded.answer == kept
    # GRUN's edit, at index 0.8 L - 1; a whole text is scored from its second token on
    end = int(share * len(kept)) - 1 if share else 0
    assert collate([encoded], 2).prompt_end.tolist() == [end]


def test_texts_of_one_token_are_refused(tokenizer) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="1 tokens"):
        Prompts(tokenizer, "qa").encode("", "")


@pytest.mark.parametrize("pieces", [["▁a", "▁", "a"], ["▁", "a"]])
def test_a_space_that_the_tokenizer_writes_is_not_written_twice(pieces: list[str]) -> None:
    """SentencePiece's tokenizers put one before a text, whether or not they know a letter with it as one piece."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), *((piece, -1.0) for piece in pieces)]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    prompts = Prompts(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>"), "qa")
    tokens = prompts.tokenizer.convert_ids_to_tokens(prompts.answer("a"))
    assert "".join(tokens) == "▁a</s>"


def test_nor_is_that_of_bytes() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    prompts = Prompts(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>"), "qa")
    assert prompts.tokenizer.convert_ids_to_tokens(prompts.answer("a")) == ["Ġ", "a", "<eos>"]
