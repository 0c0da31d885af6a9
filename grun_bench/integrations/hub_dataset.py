"""Results as the folder of a data set on the Hub: tables in Parquet, and a card that says what they hold. No torch.

Two configurations: `values`, the lines of `grun_bench.load_results`, and `runs`, a line a run with what it cost.
Settings are JSON in a text there, for every method has others. Nothing is in it that a result does not have; texts are
in none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

import grun_bench
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import write_whole
from grun_bench.results.frame import COLUMNS, table_of
from grun_bench.results.result import Result

#: configuration -> its file; the first is what `load_dataset` takes without a name
FILES = {"values": "values.parquet", "runs": "runs.parquet"}


def write_dataset(results: Sequence[Result], out: Path) -> None:
    """Write the folder. Raises GrunBenchError where it cannot be written."""
    values = table_of(results)
    values["settings"] = values["settings"].map(_text)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in (("values", values), ("runs", _runs(results))):
            table.to_parquet(out / FILES[name], index=False)
    except OSError as error:
        raise GrunBenchError(f"{out} could not be written: {error.strerror or error}.") from error
    write_whole(out / "README.md", _card(values, len(results)))


def _text(settings: object) -> str:
    return json.dumps(settings, sort_keys=True)


def _runs(results: Sequence[Result]) -> pd.DataFrame:
    """A line a run."""
    lines = [
        {
            **{"run_id": each.run_id, "task": each.task, "model": each.model, "unlearner": each.unlearner.name},
            **{"settings": _text(each.unlearner.settings), "tuned": each.unlearner.tuned_label},
            **{"seed": each.seed, "protocol": each.protocol},
            **{"limit": each.limit, "dataset": each.dataset, "dataset_hash": each.dataset_hash},
            **{"status": each.status, "date": each.date, "headline": list(each.headline)},
            **{"attacks": list(each.attacks), "device": str(each.hardware.get("device", ""))},
            **each.cost.model_dump(),
            **{"git_hash": each.git_hash, "grun_bench": each.packages.get("grun-bench")},
        }
        for each in results
    ]
    whole = ("seed", "limit", "training_peak_bytes", "scoring_peak_bytes")
    return pd.DataFrame(lines).astype(dict.fromkeys(whole, "Int64")) if lines else pd.DataFrame(lines)


def _card(values: pd.DataFrame, runs: int) -> str:
    tasks, methods = (sorted(values[name].dropna().unique()) for name in ("task", "unlearner"))
    files = [{"config_name": name, "data_files": file} for name, file in FILES.items()]
    size = next((text for most, text in _SIZES if len(values) < most), "n>1M")
    head = {
        "pretty_name": "Results of grun-bench",
        "language": ["en"],
        "tags": ["unlearning", "grun-bench", "evaluation"],
        "size_categories": [size],
        "configs": [files[0] | {"default": True}, *files[1:]],
    }
    columns = "\n".join(f"- `{name}`" for name in COLUMNS)
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# Results of grun-bench\n\n"
        f"{runs} runs of {len(methods)} methods on {len(tasks)} tasks, written by grun-bench {grun_bench.__version__}. "
        "Rows of private data are left out, and no text of any data is in it.\n\n"
        '```python\nfrom datasets import load_dataset\n\nvalues = load_dataset("ORG/NAME", "values", split="train")\n'
        'runs = load_dataset("ORG/NAME", "runs", split="train")\n```\n\n'
        "A line of `values` is one value of one run: a metric, without attack (`attack` is empty) or under one "
        "(`variant` is empty for the worst of all). Only values of equal task, protocol, limit and `dataset_hash` "
        "compare. `settings` is JSON. Its columns are those of `grun_bench.load_results`:\n\n"
        f"{columns}\n\nA line of `runs` is one run, with its settings and what it cost (seconds, bytes, parameters).\n"
    )


#: the Hub's names of sizes, in lines
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
