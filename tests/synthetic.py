"""Small result files with chosen numbers, for the tests of leaderboards."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

from grun_bench.results.result import GateSpread, Result

#: metric -> whether higher is better
DIRECTIONS: dict[str, bool | None] = {
    "forget_quality": True,
    "forget_es": False,
    "utility": True,
    "retain_rouge": True,
    "forget_gate": None,
}
HEADLINE = ["forget_quality", "utility", "forget_es"]


def result(
    unlearner: str = "grun+npo",
    es: float | None = 0.1,
    utility: float | None = 0.6,
    seed: int | None = 0,
    attacks: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """One result. `attacks`: name -> (access, extraction strength by variant)."""
    task = changes.pop("task", "letters")
    settings = {"lr": 0.001} if settings is None else settings
    identity = (
        f"{unlearner} {sorted(settings.items())} {[changes.get(name) for name in ('limit', 'dataset', 'dataset_hash')]}"
    )
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    clean = {"forget_quality": 0.5, "forget_es": es, "utility": utility, "retain_rouge": 0.9, "forget_gate": None}
    values = {f"{metric},none": value for metric, value in clean.items()}
    infos = {}
    for name, (access, variants) in (attacks or {}).items():
        values[f"forget_es,{name}"] = max(variants.values())
        values |= {f"forget_es,{name}:{variant}": value for variant, value in variants.items()}
        files = {
            variant: {"file": f"{digest}.{name}.{variant}.records.jsonl.bz2", "sha256": "0" * 64, "count": 4}
            for variant in variants
        }
        infos[name] = {"version": 1, "access": access, "settings": {"words": 3}, "variants": files, "seconds": 1.0}
    data: dict[str, Any] = {
        "run_id": digest + (f"-seed{seed}" if seed is not None else ""),
        "status": "ok",
        "date": "2026-01-02T03:04:05+00:00",
        "task": task,
        "model": "org/small",
        "unlearner": {"name": unlearner, "settings": settings},
        "seed": seed,
        "protocol": "grun-bench",
        "limit": None,
        "dataset": "published",
        "dataset_hash": "d" * 64,
        "data": {},
        "target": {},
        "reference": {},
        "results": {task: values},
        "reasons": {key: "there is no gate" for key, value in values.items() if value is None},
        "intervals": {"utility,none": (0.5, 0.7)},
        "n-samples": {task: dict.fromkeys(DIRECTIONS, 4)},
        "higher_is_better": {task: DIRECTIONS},
        "versions": {task: 1} | dict.fromkeys(DIRECTIONS, 1),
        "configs": {},
        "headline": HEADLINE,
        "cost": {"trainable_parameters": 1234567, "training_seconds": 61.0, "training_peak_bytes": 3 * 2**30},
        "history": {},
        "attacks": infos,
        "records": {"file": f"{digest}.records.jsonl.bz2", "sha256": "0" * 64, "count": 4},
        "packages": {},
        "hardware": {"device": "cpu"},
        "git_hash": None,
        "git": {"commit": "c" * 40, "dirty": False},
    }
    return Result.model_validate(data | changes)


def with_gates(one: Result, gate: float, **ways: dict[str, float]) -> Result:
    """The result as one of a model with gates; `ways` of asking: the share on the wrong side by set."""
    one.results[one.task]["forget_gate,none"] = gate
    one.reasons.pop("forget_gate,none", None)
    quantiles, roc = [gate] * 21, [(0.0, 0.0), (0.25, 1.0), (1.0, 1.0)]
    one.gates = {
        label.replace("_", ":"): {
            name: GateSpread(opens=name == "forget", n=8, wrong=wrong, quantiles=quantiles, auc=0.875, roc=roc)
            for name, wrong in spreads.items()
        }
        for label, spreads in ways.items()
    }
    return one


def store(results: list[Result], folder: Path) -> list[Path]:
    """Write results where they belong below a folder."""
    paths = []
    for one in results:
        place = folder / one.task / one.model.replace("/", "__") / one.unlearner.name
        place.mkdir(parents=True, exist_ok=True)
        paths.append(place / f"{one.run_id}.json")
        paths[-1].write_text(one.dumps())
    return paths


def unpacked(site: str) -> str:
    """The page of all boards with what is packed in it as text."""
    return re.sub(
        r'(<script type="text/plain" id="[\w-]+">)([\w+/=]+)(?=</script>)',
        lambda block: block[1] + gzip.decompress(base64.b64decode(block[2])).decode(),
        site,
    )


def references(**changes: Any) -> list[Result]:
    """The target model's row (utility 0.8) and the retain model's (extraction strength 0.05)."""
    return [
        result("none", es=0.9, utility=0.8, seed=None, settings={}, **changes),
        result("retain", es=0.05, utility=0.78, seed=None, settings={}, **changes),
    ]
