"""How a protocol names its own definitions of metrics: `<metric>_<protocol>` beside the clean `<metric>`. No torch."""

from __future__ import annotations

from collections.abc import Container

#: all protocols
PROTOCOLS = ("grun-bench", "open-unlearning")
#: protocols that define metrics in their own way
_DEFINING = ("open-unlearning",)


def own_name(name: str, protocol: str, known: Container[str]) -> str:
    """The metric (or key) as a protocol defines it, where that is `known`; else the clean one.

    Comparison with another tool's published tables needs that tool's definitions along with its way of scoring.
    """
    own = name + _suffix(protocol)
    return own if own in known else name


def plain_name(name: str, protocol: str) -> str:
    """The name without its protocol, which every title states."""
    return name.removesuffix(_suffix(protocol))


def clean_name(name: str) -> str:
    """The metric's name without any protocol."""
    for protocol in _DEFINING:
        name = plain_name(name, protocol)
    return name


def _suffix(protocol: str) -> str:
    return f"_{protocol.replace('-', '_')}"
