"""Who leads the near copies: rounds over files of pairs on the workers, so that no process holds all pairs.

Clips are taken in the order of their hashes (or of a rank): one without an earlier neighbour that leads is a leader,
any other follows the leader that it is most like. Clips get numbers in that order. Each round every file tells which of
its open clips have an earlier neighbour that leads (they follow) or is open (they wait); who does neither leads. Whole
in one process are 21 bytes for each clip that has a copy, and 20 for each row that is equal to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from rushes.curation import storage
from rushes.curation.content import arrays
from rushes.curation.content.arrays import Mapper
from rushes.curation.content.pairs import stand_for

EDGE = np.dtype([("early", np.uint32), ("late", np.uint32), ("cosine", np.float32)])
OPEN, LEADS, FOLLOWS = 0, 1, 2


@dataclass(frozen=True)
class Graph:
    """Files of PAIR rows, and rows that share another's fate: `same`, PAIR rows (standing, row).

    Further files lie in the work folder, named by `key`.
    """

    files: tuple[str, ...]
    same: np.ndarray
    folder: str
    key: str

    def file(self, kind: str, of: object = "") -> str:
        return storage.join(self.folder, "content", f"{kind}-{arrays.key_of(self.key, of)}.npy")

    def nodes(self, mapper: Mapper) -> np.ndarray:
        """Hashes of the clips that have a near copy, sorted; those that stand for others where rows are equal."""
        arrays.save(self.file("standing"), self.same)
        found = mapper(partial(_nodes, same=self.file("standing")), self.files)
        return np.unique(arrays.gathered(found, np.empty(0, np.uint64)))


def leaders(
    graph: Graph, names: np.ndarray, mapper: Mapper, rank: np.ndarray | None = None, label: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Clips that have a copy (hashes, sorted) and the clip that leads each one's group. names: of `graph.nodes`.

    rank: of each name, the smallest leads; none: the first by hash. label: of each name; pairs of two labels are no
    pairs.
    """
    order = np.arange(len(names)) if rank is None else np.lexsort((names, rank))
    number = np.empty(len(names), np.uint32)
    number[order] = np.arange(len(names))
    arrays.save(graph.file("names"), names)
    arrays.save(graph.file("numbers"), number)
    arrays.save(graph.file("kinds"), np.zeros(len(names), np.int64) if label is None else label)
    edges = list(mapper(partial(_edges, graph=graph), graph.files))
    state = _settled(graph, edges, len(names), mapper)
    leader = _followed(graph, edges, state, mapper)
    by_number = names[order]
    members, led = by_number, by_number[leader]
    return _with_equals(members, led, graph.same)


def _settled(graph: Graph, edges: list[str], count: int, mapper: Mapper) -> np.ndarray:
    """Of every number whether it LEADS or FOLLOWS."""
    state, rounds = np.zeros(count, np.uint8), 0
    while (state == OPEN).any():
        arrays.save(graph.file("state", rounds), state)
        waits, left = np.zeros(count, bool), []
        told = mapper(partial(_round, state=graph.file("state", rounds)), edges)
        for file, (follow, wait) in zip(edges, list(told)):
            state[follow] = FOLLOWS
            waits[wait] = True
            left += [file] if len(wait) else []
        state[(state == OPEN) & ~waits] = LEADS
        edges, rounds = left, rounds + 1
    arrays.save(graph.file("state", "last"), state)
    return state


def _followed(graph: Graph, edges: list[str], state: np.ndarray, mapper: Mapper) -> np.ndarray:
    """The number of every one's leader: of those it is near to the most similar, the first of equals."""
    leader, best = np.arange(len(state), dtype=np.uint32), np.full(len(state), -2, np.float32)
    for found in mapper(partial(_best, state=graph.file("state", "last")), edges):
        late, early, cosine = found["late"], found["early"], found["cosine"]
        better = (cosine > best[late]) | ((cosine == best[late]) & (early < leader[late]))
        leader[late[better]], best[late[better]] = early[better], cosine[better]
    return leader


def _with_equals(members: np.ndarray, led: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Members with those that stand aside for an equal row, sorted, without groups of one."""
    by_name = np.argsort(members)
    members, led = members[by_name], led[by_name]
    if len(same):
        rest = np.setdiff1d(np.concatenate([same["a"], same["b"]]), members)
        stands = stand_for(rest, same)
        place, there = arrays.find(stands, members)
        led = np.concatenate([led, np.where(there, led[place] if len(members) else stands, stands)])
        members = np.concatenate([members, rest])
        by_name = np.argsort(members)
        members, led = members[by_name], led[by_name]
    _, group, size = np.unique(led, return_inverse=True, return_counts=True)
    some = size[group] > 1
    return members[some], led[some]


# --- what workers do: a file of pairs ----------------------------------------------------------------------


def _standing(file: str, same: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends and cosines of a file's pairs, each end the clip that stands for it; none of a clip with itself."""
    near, equal = arrays.load(file), arrays.load(same)
    left, right = stand_for(near["a"], equal), stand_for(near["b"], equal)
    some = left != right
    return left[some], right[some], near["cosine"][some]


def _nodes(file: str, same: str) -> np.ndarray:
    left, right, _ = _standing(file, same)
    return np.unique(np.concatenate([left, right]))


def _edges(file: str, graph: Graph) -> str:
    """Leave a file's pairs by number, the earlier end first; its name."""
    out = graph.file("edges", file)
    left, right, cosine = _standing(file, graph.file("standing"))
    names, number, kind = (arrays.load(graph.file(what)) for what in ("names", "numbers", "kinds"))
    left, right = arrays.find(left, names)[0], arrays.find(right, names)[0]
    some = kind[left] == kind[right]
    left, right = number[left[some]], number[right[some]]
    edges = np.empty(len(left), EDGE)
    edges["early"], edges["late"], edges["cosine"] = np.minimum(left, right), np.maximum(left, right), cosine[some]
    arrays.save(out, edges)
    return out


def _round(file: str, state: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a file's open clips that follow a leader, and of those that wait for an open one."""
    edges, now = arrays.load(file), arrays.load(state)
    edges = edges[now[edges["late"]] == OPEN]
    of = now[edges["early"]]
    return np.unique(edges["late"][of == LEADS]), np.unique(edges["late"][of == OPEN])


def _best(file: str, state: str) -> np.ndarray:
    """A file's best edge from a leader to each of its followers."""
    edges, now = arrays.load(file), arrays.load(state)
    edges = edges[(now[edges["early"]] == LEADS) & (now[edges["late"]] == FOLLOWS)]
    edges = edges[np.lexsort((edges["early"], -edges["cosine"], edges["late"]))]
    first = np.append(True, edges["late"][1:] != edges["late"][:-1])[: len(edges)]
    return edges[first]
