"""Where a scan of all nodes of a Cluster has got to, as a text. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class ClusterCursor:
    """A node, and the cursor there. The nodes are gone through in the order of their names."""

    node: str
    cursor: int

    @classmethod
    def read(cls, text: str, nodes: Iterable[str]) -> Self | None:
        """Give where to go on; "" is the beginning. None at the end: the rest of the nodes have left."""
        cursor, _, name = text.partition("@")
        rest = sorted(node for node in nodes if node >= name)
        if not rest:
            return None
        return cls(rest[0], int(cursor) if rest[0] == name else 0)

    def after(self, following: int, nodes: Iterable[str]) -> str:
        """Give the cursor for the next call, "" at the end. `following` is what the node said."""
        if following:
            return f"{following}@{self.node}"
        rest = [node for node in nodes if node > self.node]
        return f"0@{min(rest)}" if rest else ""
