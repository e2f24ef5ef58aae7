"""One model through lm-eval: shots that fit its context, a part of the items where asked, answers kept as they come."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.evaluation.bench import Ready
from buddygpt.evaluation.harness import Scorer
from buddygpt.evaluation.kept import Kept
from buddygpt.evaluation.wording import Plan, plan, tasks_of, write_tasks
from buddygpt.events import Caution, Emit, Note, Progress

BOOTSTRAP = 200
"""Draws for the error of what is no mean."""
SEED = 1234
"""By which examples are drawn where lm-eval draws them: its own default."""


@dataclass(frozen=True)
class Settings:
    """How a model is asked.

    Args:
        shots: worked examples before each item; each benchmark's own where left out.
        batch_size: rows at once; as many as memory is meant for where left out.
        limit: items of each subject, or with `share` the share of them; all where left out.
        share: `limit` is a share.
        seed: which items a limit takes.
        texts: judge the texts of answers instead of their letters, where a benchmark has both.
    """

    shots: int | None = None
    batch_size: int | None = None
    limit: float | None = None
    share: bool = False
    seed: int = 0
    texts: bool = False


@dataclass(frozen=True)
class Fitted:
    """A benchmark as one model was asked it.

    Args:
        plan: its wording.
        cut: items whose prompt lost its beginning, since it is longer than the context without any example.
    """

    plan: Plan
    cut: int


def examine(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    ready: Sequence[Ready],
    settings: Settings,
    kept: Path | None,
    emit: Emit,
) -> tuple[dict[str, Any], list[Fitted]]:
    """lm-eval's results of a model, with every item, and how each benchmark was asked.

    Args:
        model: on its device, in eval mode.
        tokenizer: its; with a chat template, which prompts are then put into.
        ready: benchmarks with their data.
        settings: how it is asked.
        kept: file of the answers so far.
        emit: who is told.

    Raises:
        BuddyError: more shots than there are examples, a tokenizer without an end, a model that gives no numbers.
    """
    from lm_eval import simple_evaluate
    from lm_eval.defaults import DEFAULT_RANDOM_SEED
    from lm_eval.tasks import TaskManager

    chat = bool(tokenizer.chat_template)
    with _tamed(), tempfile.TemporaryDirectory() as scratch:
        scorer = Scorer(model, tokenizer, None, settings.batch_size, Kept(kept), emit)
        plans = [_plan(one, settings, chat, scorer.max_length, emit) for one in ready]
        names = write_tasks(plans, Path(scratch))
        manager = TaskManager(include_path=scratch, include_defaults=False)
        random.seed(DEFAULT_RANDOM_SEED)  # as lm-eval does: GPQA's choices are shuffled while it is loaded, and kept so
        loaded = manager.load(names)
        samples: dict[str, list[int]] = {}
        asked = [_fit(plan, loaded["tasks"], samples, scorer, settings, emit) for plan in plans]
        results = simple_evaluate(
            model=scorer,
            tasks=[loaded.get("groups", {}).get(name) or loaded["tasks"][name] for name in names],
            task_manager=manager,
            samples=samples or None,
            bootstrap_iters=BOOTSTRAP,
            apply_chat_template=chat,
            fewshot_random_seed=SEED,
            confirm_run_unsafe_code=True,  # no code of lm-eval's runs; ours has a permission of its own
        )
    assert results is not None
    return results, asked


def _plan(ready: Ready, settings: Settings, chat: bool, context: int, emit: Emit) -> Plan:
    """The benchmark's own wording with what the user changed of it."""
    benchmark = ready.benchmark
    if benchmark.fixed_shots and settings.shots not in (None, benchmark.shots):
        emit(Note(f"{benchmark.name}: has {benchmark.shots} shots by its definition; --shots does not change that"))
    found = plan(ready, context=context, shots=settings.shots, chat=chat, texts=settings.texts)
    if settings.texts and benchmark.kind == "choice" and not found.texts:
        emit(Note(f"{benchmark.name}: has no reading by the texts of answers; it is judged as always"))
    return found


def _fit(
    asked: Plan,
    loaded: Mapping[str, Any],
    samples: dict[str, list[int]],
    scorer: Scorer,
    settings: Settings,
    emit: Emit,
) -> Fitted:
    """Give fewer shots to subjects whose prompts are longer than the context; draw the items that a limit takes.

    Args:
        asked: the benchmark as it was meant.
        loaded: lm-eval's tasks by name; those of the benchmark are changed.
        samples: by task; where items are drawn, their numbers are put there.
        scorer: the model.
        settings: how it is asked.
        emit: who is told.
    """
    name, shots, cut = asked.ready.benchmark.name, {}, 0
    first, *others = tasks_of(asked.ready.benchmark).values()
    tasks = {task: loaded[task] for leaves in (first, *others) for task in leaves}
    for number, (task_name, task) in enumerate(tasks.items(), 1):
        indices = _chosen(len(task.eval_docs), settings, task_name)
        if indices is not None:
            samples[task_name] = indices
        wanted = task.get_config("num_fewshot") or 0
        lengths, room = _lengths(task, scorer, indices, asked)
        for shots[task_name] in range(wanted - 1, -1, -1) if max(lengths) > room else ():
            task.set_config(key="num_fewshot", value=shots[task_name])
            lengths, _ = _lengths(task, scorer, indices, asked)
            if max(lengths) <= room:
                break
        if task_name in first:
            cut += sum(length > room for length in lengths)
        emit(Progress(f"{name}: prompts", number, len(tasks), "subjects"))
    if shots:
        emit(
            Caution(
                f"{name}: {asked.shots} shots do not fit a context of {scorer.max_length:,} tokens in {len(shots)} of "
                f"{len(tasks)} subjects; these get fewer, down to {min(shots.values())}, and the score is marked"
            )
        )
    if cut:
        emit(Caution(f"{name}: {cut:,} prompts are longer than the context even alone and lose their beginning"))
    return Fitted(replace(asked, shots_by_subject=shots), cut)


def _lengths(task: Any, scorer: Scorer, indices: list[int] | None, asked: Plan) -> tuple[list[int], int]:
    """Tokens of each item's longest prompt, and how many have room."""
    task.set_fewshot_seed(SEED)  # the examples that will be drawn when it is asked
    task.build_all_requests(
        samples=indices, rank=0, world_size=1, apply_chat_template=asked.chat, fewshot_as_multiturn=True,
        chat_template=scorer.apply_chat_template if asked.chat else None, tokenizer_name="",
    )  # fmt: skip
    pairs = [request.args for request in task.instances]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return [0] * len(pairs), scorer.max_length  # whole texts are judged window by window
    if task.OUTPUT_TYPE == "generate_until":
        lengths = [len(ids) for ids in scorer.encode_all([context for context, _ in pairs])]
        limit = task.get_config("generation_kwargs").get("max_gen_toks", scorer.max_gen_toks)
        return lengths, scorer.max_length - limit
    by_item: dict[int, int] = {}
    for request, (context, answer) in zip(task.instances, scorer.encoded(pairs), strict=True):
        length = len(context) + len(answer) - 1
        by_item[request.doc_id] = max(by_item.get(request.doc_id, 0), length)
    return list(by_item.values()), scorer.max_length


def _chosen(items: int, settings: Settings, task: str) -> list[int] | None:
    """Numbers of the items that a limit takes, drawn by the seed; None for all."""
    if settings.limit is None:
        return None
    wanted = max(1, round(items * settings.limit)) if settings.share else int(settings.limit)
    if wanted >= items:
        return None
    seed = hashlib.blake2b(f"{settings.seed} {task}".encode(), digest_size=8).hexdigest()
    return sorted(random.Random(seed).sample(range(items), wanted))


@contextlib.contextmanager
def _tamed() -> Iterator[None]:
    """lm-eval quiet, and quick where it wastes time: what matters of its chatter is told by us."""
    import datasets
    from lm_eval import evaluator, utils

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    with contextlib.ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        # It compiles a template for each field of each item, which takes most of the time for prompts.
        stack.enter_context(_replaced(utils.env, "from_string", lru_cache(maxsize=1024)(utils.env.from_string)))
        # The revision of the folder one happens to be in, of which git complains, and a list of all that is installed.
        stack.enter_context(_replaced(evaluator, "get_git_commit_hash", lambda: None))
        stack.enter_context(_replaced(evaluator, "add_env_info", lambda results: None))
        try:
            yield
        finally:
            if not bars:
                datasets.enable_progress_bars()


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    theirs = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, theirs)
