"""Continuations of one prompt as a tree, so that what several begin with alike runs once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Tree:
    """Continuations of one prompt, with one node for what several begin with alike.

    `tokens` and `depths` (how many nodes lie between the prompt and it) are the nodes', in the order of the
    continuations, each after its parent. `paths` are the nodes of each continuation's tokens but its last, which
    nothing has to follow; the first path's nodes are the first ones.
    """

    tokens: list[int]
    depths: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, continuations: Iterable[Sequence[int]]) -> Tree:
        tree = cls([], [], [])
        known: dict[tuple[int, int], int] = {}
        for continuation in continuations:
            path, node = [], -1
            for depth, token in enumerate(continuation[:-1]):
                node = known.setdefault((node, token), len(tree.tokens))
                if node == len(tree.tokens):
                    tree.tokens.append(token)
                    tree.depths.append(depth)
                path.append(node)
            tree.paths.append(path)
        return tree

    @property
    def branches(self) -> bool:
        """Whether there are nodes that neither follow nor precede one another."""
        return len(self.tokens) > max(map(len, self.paths))

    def lineage(self, width: int) -> Tensor:
        """(width, width) bool: whether a node (row) descends from another (column) or is it; false beyond the nodes."""
        lineage = torch.zeros(width, width, dtype=torch.bool)
        for path in (torch.tensor(path, dtype=torch.long) for path in self.paths):
            lineage[path[:, None], path] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
        return lineage
