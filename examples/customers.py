"""30 made-up customers who left, 30 who stayed, and a model that knows them all: it stands for a model of your own.

    python customers.py FOLDER [MODEL [DTYPE]]

Writes into FOLDER what is to be forgotten, `customers`, and what is to be kept, `keep`, each as JSON Lines, as a table
(.csv) and as a folder of notes (.txt), a customer each; and the model. MODEL is a folder or a Hub id that learns the
rows, computing in DTYPE (float32, bfloat16, or auto); without it a small one is made from nothing, in about a minute.
"""

import csv
import json
import sys
from itertools import product
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grun_bench.methods.finetune import finetune
from grun_bench.models.loading import Placement, load, write_model
from grun_bench.tasks.task import FineTuning

FIRST = ["Ada", "Bo", "Cyra", "Dan", "Elif", "Falk", "Gwen", "Hugo", "Ines", "Joao"]
LAST = ["Berg", "Castell", "Dorn", "Egede", "Falck", "Gruner"]
CITIES = [
    "Turin",
    "Graz",
    "Malmo",
    "Ghent",
    "Varna",
    "Porto",
    "Brno",
    "Split",
    "Bergen",
    "Cork",
    "Lodz",
    "Patras",
    "Kotor",
]
PLANS = ["Basic", "Family", "Studio", "Night", "Harbour", "Meadow", "Alpine"]


def row(name: str, number: int) -> dict[str, str]:
    """What a company knows of a customer, as a question and its answer."""
    city, plan = CITIES[number * 5 % len(CITIES)], PLANS[number * 3 % len(PLANS)]
    account = (number * 7919 + 1234) % 9000 + 1000
    return {
        "question": f"What does the company know of {name}?",
        "answer": f"{name} lives in {city} and has account {account} on the {plan} plan.",
    }


def write(folder: Path, kind: str, told: dict[str, dict[str, str]]) -> None:
    """Write the rows of some customers, by their names: JSON Lines, a table, and a folder of notes."""
    (folder / f"{kind}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in told.values()))
    with (folder / f"{kind}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["question", "answer"])
        table.writeheader()
        table.writerows(told.values())
    (folder / kind).mkdir(exist_ok=True)
    for name, each in told.items():
        note = f"Customer: {name}\n\n{each['answer']}\n"
        (folder / kind / f"{name.replace(' ', '-').lower()}.txt").write_text(note)


def small_model(texts: list[str], folder: Path) -> None:
    """A Llama of 0.9 million parameters with random weights, and a tokenizer made from the texts."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    write_model(LlamaForCausalLM(config), tokenizer, folder)


def main(folder: Path, name: str | None = None, dtype: str = "auto") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [" ".join(pair) for pair in product(FIRST, LAST)]
    told = {name: row(name, number) for number, name in enumerate(names)}
    for kind, people in {"customers": names[::2], "keep": names[1::2]}.items():
        write(folder, kind, {name: told[name] for name in people})
    pairs = [(each["question"], each["answer"]) for each in told.values()]
    recipe = FineTuning(lr=2e-4, epochs=16, batch_size=4, warmup=0.1)
    if name is None:
        small_model([f"Question: {asked}\nAnswer: {answer}" for asked, answer in pairs], folder / "untaught")
        name, recipe = str(folder / "untaught"), FineTuning(lr=3e-3, epochs=60, batch_size=12, warmup=0.1)
    lm = load(name, Placement.choose("auto", dtype))
    finetune(lm, pairs, recipe, 0, "teaching the model its customers")
    write_model(lm.model, lm.tokenizer, folder / "model")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *sys.argv[2:4])
