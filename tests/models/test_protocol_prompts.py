"""One protocol, one prompt: what a model is trained on is what it is asked, in every form that prompts have."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from grun_bench.methods.base import FitContext, Fitted, Unlearner
from grun_bench.methods.draws import encode_rows
from grun_bench.methods.recipes import Recipe
from grun_bench.methods.saving import load, save
from grun_bench.models.batch import Encoded
from grun_bench.models.lm import LM, usual_prompts
from grun_bench.models.loading import write_model
from grun_bench.models.protocols import PROTOCOLS
from grun_bench.models.scoring import Example, ScoringSettings, score, works_of
from grun_bench.runs.config import RunConfig
from grun_bench.runs.fit import fit
from grun_bench.runs.inputs import Method, resolve
from grun_bench.runs.session import Session

MESSAGE = "{% for m in messages %}<s>[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
ASKS = MESSAGE + "{% if add_generation_prompt %}<s>[assistant]{% endif %}"
TAILED = ASKS.replace("</s>", "</s>{{ '\\n' }}")
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + ASKS
DATED = "{{ date_string }} {% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %} " + ASKS
#: marked as Llama 2's is; its own form is not what is used
LLAMA_2 = "{% if false %}<<SYS>>{% endif %}" + ASKS
SYSTEM = "<s>[system]You are a helpful assistant.</s>"

#: form -> chat template, the text before the answer, and the text after it but for the end of sequence
FORMS: dict[str, tuple[str | None, str, str]] = {
    "a template": (ASKS, SYSTEM + "<s>[user]Who?</s><s>[assistant]", ""),
    "a template that refuses the system role": (REFUSES, "<s>[user]Who?</s><s>[assistant]", ""),
    "a template with a date": (DATED, "10 Apr 2025 2025 " + SYSTEM + "<s>[user]Who?</s><s>[assistant]", ""),
    "Llama 2's chat template": (LLAMA_2, "[INST] Who? [/INST]", ""),
    "no template": (None, "Question: Who?\nAnswer: ", ""),
    "a template with a tail": (TAILED, SYSTEM + "\n<s>[user]Who?</s>\n<s>[assistant]", "</s>\n"),
}


def tokenizer_of(template: str | None, merges: tuple[tuple[str, str], ...] = ()) -> PreTrainedTokenizerBase:
    """One token a byte, but for special tokens and what merges."""
    letters = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    core = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(letters)}, merges=list(merges)))
    core.add_special_tokens(["<s>", "</s>", "<pad>"])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def chat_model(tokenizer: PreTrainedTokenizerBase) -> LM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.4,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LM(LlamaForCausalLM(config).eval(), tokenizer, usual_prompts(tokenizer), {"name": "random"})


def trained_on(lm: LM, question: str, answer: str) -> Encoded:
    return encode_rows(lm, [(question, answer)], Recipe())[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
def test_training_sees_the_ids_that_scoring_asks(form: str, protocol: str) -> None:
    lm = chat_model(tokenizer_of(FORMS[form][0]))
    lm.prompts = PROTOCOLS[protocol].prompts(lm)
    (work,) = works_of(lm.prompts, Example("forget", 0, "Who?", "Ada.", "Bo."), generate=True)
    encoded = trained_on(lm, "Who?", "Ada.")
    assert encoded.prompt == work.prompt
    assert encoded.answer == work.continuations[0]


@pytest.mark.parametrize("form", FORMS)
def test_open_unlearning_has_the_prompts_of_its_configurations(form: str) -> None:
    template, before, after = FORMS[form]
    lm = chat_model(tokenizer_of(template))
    encoded = PROTOCOLS["open-unlearning"].prompts(lm).encode("Who?", "Ada.")
    assert lm.tokenizer.decode(encoded.prompt) == before
    assert lm.tokenizer.decode(encoded.answer) == f"Ada.{after}</s>"


@pytest.mark.parametrize(
    ("form", "asked"),
    [
        (
            "a template that refuses the system role",
            "<s>[user]A?</s><s>[assistant]B.</s><s>[user]Who?</s><s>[assistant]",
        ),
        ("Llama 2's chat template", "[INST] A? [/INST]B. [INST] Who? [/INST]"),
        ("no template", "Question: A?\nAnswer: B.\n\nQuestion: Who?\nAnswer: "),
    ],
)
def test_questions_before_the_question_have_the_same_form(form: str, asked: str) -> None:
    prompts = PROTOCOLS["open-unlearning"].prompts(chat_model(tokenizer_of(FORMS[form][0])))
    assert prompts.tokenizer.decode(prompts.prompt("Who?", [("A?", "B.")], "So ")) == asked + "So "


def test_a_token_over_the_border_belongs_to_the_prompt_that_the_answer_has() -> None:
    """After "Answer: " the space merges with the answer's first letter, as with the tokenizers of phi and Llama 2."""
    lm = chat_model(tokenizer_of(None, (("Ġ", "A"),)))
    prompts = PROTOCOLS["open-unlearning"].prompts(lm)
    whole = [*lm.tokenizer("Question: Who?\nAnswer: Ada.").input_ids, lm.tokenizer.eos_token_id]
    border = len(lm.tokenizer("Question: Who?\nAnswer: ").input_ids)
    encoded = prompts.encode("Who?", "Ada.")
    assert lm.tokenizer.decode(encoded.prompt).endswith(" A") and encoded.prompt + encoded.answer == whole
    example = Example("forget", 0, "Who?", "Ada.", "Bo.", ("Al.",))
    alone, *after = works_of(prompts, example, generate=True)
    assert lm.tokenizer.decode(alone.prompt).endswith("Answer: ") and alone.generate and not alone.continuations
    assert [len(work.prompt) for work in after] == [border] * 3
    (record,) = score(lm, [example], ScoringSettings(4, protocol="open-unlearning"))
    with torch.no_grad():
        logits = lm.model(torch.tensor([whole])).logits[0, border - 1 : -1]
        greedy = lm.model.generate(torch.tensor([alone.prompt]), max_new_tokens=4, do_sample=False)[0, border:]
    expected = logits.log_softmax(-1)[range(len(whole) - border), whole[border:]]
    assert record.answer.logprobs == pytest.approx(expected.tolist(), abs=1e-5)
    assert record.answer.means is not None and math.isfinite(record.perturbed[0].loss)
    assert record.generation.text == lm.tokenizer.decode(greedy, skip_special_tokens=True).strip()


# --- whole runs -------------------------------------------------------------------------------------------------------


class Asking(Unlearner):
    """Keeps the prompts that a training would have."""

    def fit(self, context: FitContext) -> Fitted:
        lm = context.load_target()
        self.trained = trained_on(lm, *context.forget[0])
        return Fitted(lm)


def asked(hub: Path, folder: Path, protocol: str, **options: str) -> tuple[Encoded, Fitted]:
    """What the first forget row is trained as, and the model that came of it."""
    options = options or {"target_model": str(folder)}
    config = RunConfig("none", str(hub / "small.yaml"), protocol=protocol, device="cpu", dtype="float32", **options)
    session = Session.of(config)
    with session.in_force():
        method = Method("asking", Asking())
        trained = fit(resolve(config, session, method), method)
    assert trained.fitted is not None
    return method.unlearner.trained, trained.fitted


@pytest.fixture
def folder(environment: Path, tmp_path: Path) -> Path:
    """A chat model as a folder, and a mirror with data."""
    lm = chat_model(tokenizer_of(ASKS))
    write_model(lm.model, lm.tokenizer, tmp_path / "chat")
    return tmp_path / "chat"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_trains_on_the_prompts_of_its_protocol(protocol: str, hub: Path, folder: Path) -> None:
    encoded, fitted = asked(hub, folder, protocol)
    assert (SYSTEM in fitted.lm.tokenizer.decode(encoded.prompt)) == (protocol == "open-unlearning")


@pytest.mark.long
def test_a_target_is_fine_tuned_on_the_prompts_of_its_protocol(hub: Path, folder: Path) -> None:
    weights = [asked(hub, folder, protocol, model=str(folder))[1].lm.model.lm_head.weight for protocol in PROTOCOLS]
    assert not torch.equal(*weights)


def test_a_saved_model_keeps_the_prompts_that_it_was_trained_on(folder: Path, tmp_path: Path) -> None:
    lm = chat_model(tokenizer_of(ASKS))
    lm.prompts = PROTOCOLS["open-unlearning"].prompts(lm)
    save(Fitted(lm), "full+ga", tmp_path / "saved")
    again = load(tmp_path / "saved", "cpu", "float32")
    assert again.prompts.prompt("Who?") == lm.prompts.prompt("Who?")
    # asked the clean way it is asked as any other model
    clean = PROTOCOLS["grun-bench"].prompts(again)
    assert clean.prompt("Who?") == usual_prompts(lm.tokenizer).prompt("Who?") != lm.prompts.prompt("Who?")
