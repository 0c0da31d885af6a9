"""What attacks need of a task beside its rows. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: attacks -> the key of a task file that names what they need
DATA = {"alias": "reworded", "translate": "reworded", "depth": "entities"}


def lacks(task: Mapping[str, Any], attack: str) -> bool:
    """Whether a task, by the keys of its file, says that its data have nothing for an attack."""
    key = DATA.get(attack, "")
    data = task.get(key)
    return isinstance(data, dict) and not (data.get(attack) if key == "reworded" else data)
