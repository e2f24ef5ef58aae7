"""Groups of near-duplicate documents from pairs of them, and which document of each group stays.

Only sets of pairs matter: neither their order nor that of the documents changes a result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]


def bucket_edges(keys: Numbers, numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Pairs that tie together the documents with equal keys: the one of smallest number with each other one.

    Args:
        keys: of one band, one for each document.
        numbers: of the documents, distinct.

    Returns:
        Smaller and larger number of each pair.
    """
    order = np.argsort(keys)
    keys, numbers = keys[order], numbers[order]
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(first)
    if len(starts) == len(keys):
        return numbers[:0], numbers[:0]
    smallest = np.repeat(np.minimum.reduceat(numbers, starts), np.diff(starts, append=len(keys)))
    other = smallest != numbers
    return smallest[other], numbers[other]


def components(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """Connected components of the graph with edges a[i], b[i].

    Labels only fall: each round, every tree hangs itself below the smallest root that an edge of it leads to, then all
    paths are halved until they end (as in Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982).
    Takes about 80 bytes an edge.

    Args:
        a, b: document numbers, in any order.

    Returns:
        The documents with an edge, ascending, and for each the smallest document of its component.
    """
    nodes, (a, b) = _enumerate(a, b)
    parents = np.arange(len(nodes))
    while True:
        a, b = parents[a], parents[b]
        apart = a != b
        if not apart.any():
            return nodes, nodes[parents]
        a, b = a[apart], b[apart]
        np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(above := parents[parents], parents):
            parents = above


def _enumerate(a: Numbers, b: Numbers) -> tuple[Numbers, NDArray[np.intp]]:
    """The distinct numbers, ascending, and the places in it of all of a and b, [2, len(a)].

    What `np.unique` does with `return_inverse`, in a third of the time.
    """
    both = np.concatenate((a, b))
    order = np.argsort(both)
    both = both[order]
    first = np.ones(len(both), bool)
    first[1:] = both[1:] != both[:-1]
    places = np.empty(len(both), np.intp)
    places[order] = np.cumsum(first) - 1
    return both[first], places.reshape(2, -1)


def choose_kept(labels: Numbers, sizes: Numbers, high: Numbers, low: Numbers, numbers: Numbers) -> NDArray[np.bool_]:
    """Which documents stay: of each component the longest text; of equally long ones that of the smallest hash.

    So which text stays does not depend on the order of documents; among copies of one text the first stays.

    Args:
        labels: of the components, one for each document.
        sizes: of the texts, in bytes.
        high, low: the words of their hashes.
        numbers: of the documents.
    """
    order = np.lexsort((numbers, low, high, ~sizes, labels))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(labels[order]) != 0
    kept = np.zeros(len(order), bool)
    kept[order[first]] = True
    return kept
