"""What several test folders share: the command line run in this process, and recipes small enough for seconds."""

import gc
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
"""Real text, where a developer has it; tests that need it are skipped by name where not."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite in the background (nohup, a shell) is deaf to Ctrl-C, and so would be the commands that tests stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    """Each end of training collects garbage, and would walk through all modules: 0.2 s, hundreds of times."""
    gc.collect()
    gc.freeze()


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def buddy(tmp_path, monkeypatch, capfd):
    """Run `buddy ARGUMENTS` in `tmp_path`, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        from buddygpt.cli.app import main

        monkeypatch.setattr(sys, "argv", ["buddy", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


TOY = (
    "model.vocab_size=400",
    "model.hidden_size=32",
    "model.num_hidden_layers=1",
    "model.attention={kind: gqa, num_attention_heads: 2, num_key_value_heads: 1}",
    "model.mlp={kind: dense, intermediate_size: 48}",
    "model.max_position_embeddings=64",
    "tokenizer={train: 400, base: null, keep: null}",
    "data.sources=[{kind: demo, characters: 20000}]",
    "data.validation=0.1",
    "pretrain.sequence_length=32",
    "pretrain.micro_batch_size=2",
    "pretrain.tokens_per_batch=128",
    "pretrain.tokens=256",
    "pretrain.eval_tokens=200",
)
"""Overrides that shrink any recipe to seconds."""


@pytest.fixture
def toy():
    """`--set` arguments that shrink a recipe, and more of the caller's."""

    def arguments(*more: str) -> list[str]:
        return [part for override in (*TOY, *more) for part in ("--set", override)]

    return arguments


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory):
    """A folder with the benchmarks and models of `tests.toy_benchmarks`; nobody writes into it."""
    from tests.toy_benchmarks import write_benchmarks, write_models

    root = tmp_path_factory.mktemp("toys")
    write_benchmarks(root)
    write_models(root)
    return root


@pytest.fixture
def toys(toy_world, monkeypatch):
    """`toy_world`, its benchmarks known to this process."""
    import functools

    from lm_eval import evaluator, utils

    from buddygpt.evaluation import catalog
    from tests.toy_benchmarks import use_benchmarks

    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)  # asks pip for a list, which takes a second
    monkeypatch.setattr(utils.env, "from_string", functools.lru_cache(utils.env.from_string))
    shipped = catalog.FOLDER
    use_benchmarks(toy_world)
    yield toy_world
    use_benchmarks(shipped.parent)
