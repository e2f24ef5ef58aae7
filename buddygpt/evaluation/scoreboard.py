"""From lm-eval's results to scores, and two models compared item by item."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from buddygpt.evaluation.significance import Z, above_chance, interval, mcnemar, mean_error, share_error, sign_flip
from buddygpt.report.scores import Comparison, Score, Subject, is_share

Results = Mapping[str, Any]
"""What `lm_eval.simple_evaluate` returns, with samples."""


class Mark(NamedTuple):
    """One item's part in a score, which is the sum of values over the sum of weights.

    Right or wrong is 1 or 0 with weight 1; a text has its bits and its characters, a prompt with several instructions
    those that were followed and how many there are.
    """

    value: float
    weight: float = 1.0


Marks = Mapping[tuple[str, str], Mark]
"""Subject and item to its mark; items go by a hash of what they hold, for their places differ where a part is asked."""


@dataclass(frozen=True)
class Asked:
    """A benchmark as it was put to a model.

    Args:
        task: what the tables call it.
        root: lm-eval's task or group of it, as in the results.
        metric: lm-eval's key, such as `acc,none`.
        chance: what guessing gives, a share; None where that is not known.
        shots: worked examples asked for; None where that has no meaning.
        chat: whether the chat template was used.
        cut: prompts that were cut to fit the context.
        contaminated: training documents that held pieces of its items and were left out; None where unknown.
    """

    task: str
    root: str
    metric: str
    chance: float | None = None
    shots: int | None = None
    chat: bool = False
    cut: int = 0
    contaminated: int | None = None


def scores_of(results: Results, benchmarks: Iterable[Asked]) -> list[Score]:
    """A score for each benchmark.

    Args:
        results: of one model.
        benchmarks: all that is in the results, or some of it.
    """
    return [_score_of(results, asked) for asked in benchmarks]


def marks(results: Results, benchmark: Asked) -> dict[tuple[str, str], Mark]:
    """Every item's part in the benchmark's score, to pair two models by."""
    return _marks(results, _leaves(results, benchmark.root), benchmark.metric)


def score(asked: Asked, found: Marks, **more: Any) -> Score:
    """A score from marks, also of a measure that is not lm-eval's.

    Args:
        asked: `root` is not read.
        found: at least one. The subjects in them get scores of their own where there are several.
        more: further fields of a `Score`.
    """
    by_subject: dict[str, list[Mark]] = {}
    for (subject, _), mark in found.items():
        by_subject.setdefault(subject, []).append(mark)
    subjects = {name: _subject(some, asked.metric) for name, some in by_subject.items()}
    whole = _subject(list(found.values()), asked.metric)
    error = _error(list(found.values()))
    return Score(
        task=asked.task,
        metric=asked.metric,
        value=whole.value,
        stderr=None if math.isnan(error) else error,
        n=whole.n,
        low=whole.low,
        high=whole.high,
        chance=asked.chance,
        above_chance=above_chance(whole.value, whole.n, asked.chance),
        shots=asked.shots,
        chat=asked.chat,
        subjects=subjects if len(subjects) > 1 else {},
        cut=asked.cut,
        contaminated=asked.contaminated,
        **{"total": whole.n} | more,
    )


def paired(task: str, metric: str, first: tuple[str, Marks], second: tuple[str, Marks]) -> Comparison:
    """Compare two models on the items that both were asked.

    McNemar's exact test where items are right or wrong, else a sign-flip test of the differences.

    Args:
        task, metric: of both.
        first, second: name of a model, and its marks.
    """
    (name_a, a), (name_b, b) = first, second
    keys = sorted(key for key in a.keys() & b.keys() if math.isfinite(a[key].value) and math.isfinite(b[key].value))
    alone = len(a.keys() | b.keys()) - len(keys)
    if not keys:
        return Comparison(task, metric, name_a, name_b, 0, math.nan, None, None, alone=alone)
    differences = [a[key].value - b[key].value for key in keys]
    weights = [a[key].weight for key in keys]  # an item weighs the same whoever answers
    difference, error = sum(differences) / sum(weights), mean_error(differences, weights)
    only_first = only_second = None
    if _right_or_wrong([side[key] for side in (a, b) for key in keys]):
        p = mcnemar(*([bool(side[key].value) for key in keys] for side in (a, b)))
        only_first, only_second = differences.count(1), differences.count(-1)
    else:
        p = sign_flip(differences)
    stderr = None if math.isnan(error) else error
    return Comparison(task, metric, name_a, name_b, len(keys), difference, stderr, p, only_first, only_second, alone)


def _score_of(results: Results, asked: Asked) -> Score:
    leaves = _leaves(results, asked.root)
    given = {name: results["n-shot"].get(leaf) or 0 for leaf, name in leaves.items()}
    return score(
        asked,
        _marks(results, leaves, asked.metric),
        total=sum(results["n-samples"][leaf]["original"] for leaf in leaves),
        fewer_shots={name: shots for name, shots in given.items() if shots < (asked.shots or 0)},
        extra=_extra(results, leaves, asked.metric),
    )


def _leaves(results: Results, root: str) -> dict[str, str]:
    """lm-eval's tasks below a group, or the task itself, with the subjects they are."""
    names: list[str] = []
    open_names = [root]
    while open_names:
        name = open_names.pop(0)
        below = results["group_subtasks"].get(name)
        if below:
            open_names[:0] = below
        else:
            names.append(name)
    return {name: name.removeprefix(f"{root}_") for name in names}


def _marks(results: Results, leaves: Mapping[str, str], metric: str) -> dict[tuple[str, str], Mark]:
    name, _, wanted = metric.rpartition(",")
    found: dict[tuple[str, str], Mark] = {}
    for leaf, subject in leaves.items():
        seen: Counter[str] = Counter()
        for sample in sorted(results["samples"][leaf], key=lambda sample: sample["doc_id"]):
            if sample["filter"] != wanted or name not in sample:
                continue
            item = sample["doc_hash"]
            seen[item] += 1
            # A question that stands twice in a test is two items.
            found[subject, item if seen[item] == 1 else f"{item} {seen[item]}"] = _mark(name, sample[name])
    if not found:
        raise ValueError(f"none of {', '.join(leaves)} has a metric {metric}")
    return found


def _mark(metric: str, value: Any) -> Mark:
    """What lm-eval keeps of an item: a number, a list of them, or log-likelihood in nats and units of text."""
    if not isinstance(value, (list, tuple)):
        return Mark(float(value))
    if not is_share(metric):
        return Mark(-float(value[0]) / math.log(2), float(value[1]))
    return Mark(float(sum(value)), float(len(value)))


def _extra(results: Results, leaves: Mapping[str, str], metric: str) -> dict[str, float]:
    """The other metrics: lm-eval's own number of a single task, over all items where there are several."""
    keys = dict.fromkeys(key for leaf in leaves for key in results["results"][leaf] if "," in key)
    values: dict[str, float] = {}
    for key in keys:
        if key == metric or "_stderr," in key:
            continue
        if len(leaves) == 1:
            value = results["results"][next(iter(leaves))][key]
        else:
            value = _value(list(_marks(results, leaves, key).values()))
        values[key.removesuffix(",none")] = float(value)
    return values


def _subject(some: Sequence[Mark], metric: str) -> Subject:
    value = _value(some)
    if _right_or_wrong(some):
        return Subject(value, len(some), *interval(value, len(some)))
    reach = Z * _error(some)
    low, high = (value - reach, value + reach) if math.isfinite(reach) else (value, value)
    return Subject(value, len(some), *((max(0.0, low), min(1.0, high)) if is_share(metric) else (low, high)))


def _value(some: Sequence[Mark]) -> float:
    weight = math.fsum(mark.weight for mark in some)
    return math.fsum(mark.value for mark in some) / weight if weight else math.nan


def _error(some: Sequence[Mark]) -> float:
    if _right_or_wrong(some):
        return share_error(_value(some), len(some))
    return mean_error([mark.value for mark in some], [mark.weight for mark in some])


def _right_or_wrong(some: Iterable[Mark]) -> bool:
    return all(mark.weight == 1 and mark.value in (0, 1) for mark in some)
