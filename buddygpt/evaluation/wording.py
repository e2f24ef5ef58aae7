"""Benchmarks in lm-eval's words: its own YAML files, each included in one that names the rows on this machine.

Prompts, examples and metrics stay lm-eval's; what is ours is where the rows lie, the number of examples, and the limit
of a written answer. `include` replaces whole keys, so a key that is a mapping is written with all it had.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from buddygpt.evaluation.bench import Ready
from buddygpt.evaluation.catalog import Benchmark, Function, Harness, data_of, subjects_of
from buddygpt.evaluation.needs import lacking
from buddygpt.recipe.errors import BuddyError

_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclass(frozen=True)
class Plan:
    """A benchmark as it will be run.

    Args:
        ready: its rows.
        shots: worked examples before each question.
        shots_by_subject: where a subject, or one of lm-eval's tasks, has another number.
        max_new_tokens: limit of a written answer, tokens; lm-eval's where None.
        chat: whether the chat template is used.
        texts: answers are judged by their texts, not by their letters.
    """

    ready: Ready
    shots: int
    shots_by_subject: Mapping[str, int] = field(default_factory=dict)
    max_new_tokens: int | None = None
    chat: bool = False
    texts: bool = False

    @property
    def metric(self) -> str:
        """lm-eval's key of the score."""
        own = self.ready.benchmark.answer_texts
        return own.metric if own and self.texts else self.ready.benchmark.metric


def plan(ready: Ready, *, context: int, shots: int | None = None, chat: bool = False, texts: bool = False) -> Plan:
    """Settle examples and limits.

    Args:
        ready: the rows.
        context: of the model, tokens.
        shots: as asked for; the benchmark's own where None or where it fixes them.
        chat: whether the model is a chat model.
        texts: judge answers by their texts, where the benchmark can.

    Raises:
        BuddyError: more examples than there are.
    """
    benchmark = ready.benchmark
    _, data = data_of(benchmark)
    wanted = benchmark.shots if shots is None or benchmark.fixed_shots else shots
    split = data.examples if data else None
    if wanted and (split is None or split not in ready.counts):
        raise BuddyError(f"{benchmark.name}: {wanted} shots, but there are no rows for examples; run it with --shots 0")
    if wanted:
        assert split is not None
        subject, least = min(_rows(ready, split), key=lambda each: each[1])
        if wanted > least:
            raise BuddyError(
                f"{benchmark.name}: {wanted} shots, but {subject} has {least} examples; take --shots {least}"
            )
    limit = benchmark.max_new_tokens
    return Plan(
        ready,
        wanted,
        max_new_tokens=None if limit is None else min(limit, context // 2),
        chat=chat and benchmark.chat == "model",
        texts=texts and benchmark.answer_texts is not None,
    )


def tasks_of(benchmark: Benchmark) -> dict[str, dict[str, str]]:
    """lm-eval's names: of each task or group that a benchmark is run as, and below it each task with its subject.

    A wording whose packages are not installed is left out.
    """
    if benchmark.config is not None:
        return {benchmark.name: {benchmark.name: subjects_of(benchmark)[0]}}
    return {
        harness.task: {name: _subject(name, harness, benchmark) for name in _leaves(harness.task, harness.folder)}
        for harness in benchmark.harness
        if lacking(harness.needs) is None
    }


def write_tasks(plans: Iterable[Plan], folder: Path) -> list[str]:
    """Write what `TaskManager(include_path=folder, include_defaults=False)` loads, without a network.

    Args:
        plans: each of another benchmark.
        folder: made where it is missing; YAML files of an earlier time are removed.

    Returns:
        The names to load: groups where lm-eval has groups.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.yaml"):
        old.unlink()
    names = []
    for each in plans:
        benchmark = each.ready.benchmark
        if benchmark.config is not None:
            _write(folder / f"{benchmark.name}.yaml", _own_task(each, benchmark.config))
        tops = tasks_of(benchmark)
        for harness in (harness for harness in benchmark.harness if harness.task in tops):
            index = _index(harness.folder)
            for task, subject in tops[harness.task].items():
                _write(folder / f"{task}.yaml", _task(each, harness, task, subject))
            for group in _groups(harness.task, harness.folder):
                _write(folder / f"group-{group}.yaml", {"include": str(index[group].yaml_path)})
        names += tops
    return names


def _task(plan: Plan, harness: Harness, task: str, subject: str) -> dict[str, Any]:
    """One of lm-eval's tasks over rows of ours."""
    entry = _index(harness.folder)[task]
    theirs = entry.cfg
    usual = plan.shots if harness.shots is None else harness.shots
    keys = {"include": str(entry.yaml_path), "task": task} | _rows_of(plan, subject)
    keys["dataset_name"] = subject if len(plan.ready.files) > 1 else None
    keys["num_fewshot"] = plan.shots_by_subject.get(task, plan.shots_by_subject.get(subject, usual))
    keys |= {key: None for key in _SPLITS if theirs.get(key) and theirs[key] not in plan.ready.files[subject]}
    if plan.texts and (own := plan.ready.benchmark.answer_texts):
        keys |= {"doc_to_text": own.doc_to_text, "doc_to_choice": own.doc_to_choice, "description": ""}
    if theirs.get("output_type") == "generate_until":
        keys["generation_kwargs"] = _limited(theirs.get("generation_kwargs") or {}, plan)
    return keys


def _own_task(plan: Plan, config: Mapping[str, Any]) -> dict[str, Any]:
    """A task of ours."""
    (subject,) = plan.ready.files
    name = plan.ready.benchmark.name
    keys = {"task": name} | _rows_of(plan, subject) | dict(config)
    keys["num_fewshot"] = plan.shots_by_subject.get(name, plan.shots)
    if config.get("output_type") == "generate_until":
        keys["generation_kwargs"] = _limited(config.get("generation_kwargs") or {}, plan)
    return keys


def _rows_of(plan: Plan, subject: str) -> dict[str, Any]:
    """Where the rows lie; what `datasets` makes of them lies beside them, not in its own cache."""
    files = {split: str(path) for split, path in plan.ready.files[subject].items()}
    beside = str(next(iter(plan.ready.files[subject].values())).parent / "arrow")
    return {"dataset_path": "json", "dataset_kwargs": {"data_files": files, "cache_dir": beside}}


def _limited(generation: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    return dict(generation) | ({"max_gen_toks": plan.max_new_tokens} if plan.max_new_tokens else {})


def _rows(ready: Ready, split: str) -> Iterator[tuple[str, int]]:
    for subject, files in ready.files.items():
        with files[split].open("rb") as lines:
            yield subject, sum(1 for _ in lines)


def _subject(task: str, harness: Harness, benchmark: Benchmark) -> str:
    """Whose rows one of lm-eval's tasks is about."""
    subjects = subjects_of(benchmark)
    return subjects[0] if len(subjects) == 1 else _index(harness.folder)[task].cfg["dataset_name"]


@cache
def _index(folder: str) -> dict[str, Any]:
    """lm-eval's tasks, groups and tags in a folder below its own `tasks`; indexing all of them takes long."""
    import lm_eval.tasks as tasks

    return tasks.TaskManager(include_path=Path(tasks.__file__).parent / folder, include_defaults=False).task_index


def _members(name: str, folder: str) -> list[str]:
    """What a group or a tag holds, groups within it by their members; none for a task."""
    entry = _index(folder)[name]
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    members: list[str] = []
    listed = entry.cfg["task"] if entry.kind.name == "GROUP" else []
    while listed:
        first, *listed = listed
        if isinstance(first, str):
            members.append(first)
        else:  # a group that has no file of its own
            listed = [*first["task"], *listed] if isinstance(first["task"], list) else [first["task"], *listed]
    return members


def _leaves(name: str, folder: str) -> list[str]:
    members = _members(name, folder)
    return [leaf for member in members for leaf in _leaves(member, folder)] if members else [name]


def _groups(name: str, folder: str) -> list[str]:
    below = [group for member in _members(name, folder) for group in _groups(member, folder)]
    return [name, *below] if _index(folder)[name].kind.name == "GROUP" else below


def _write(path: Path, keys: Mapping[str, Any]) -> None:
    """A YAML file whose values are spelt as JSON, which YAML of any version reads alike."""
    path.write_text("".join(f"{key}: {_spell(value)}\n" for key, value in keys.items()), encoding="utf-8")


def _spell(value: Any) -> str:
    match value:
        case Function():
            return f"!function {value}"
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)}: {_spell(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_spell, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
