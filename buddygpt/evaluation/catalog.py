"""Benchmarks by their names, read from the YAML files in `tasks` when they are asked for; each is one file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from buddygpt.recipe.base import Count, Positive, Section, Share
from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.report.scores import COLUMNS

FOLDER = Path(__file__).with_name("tasks")
_Rows = Annotated[list[Count], BeforeValidator(lambda rows: rows if isinstance(rows, list) else [rows])]


class Function(str):
    """The dotted name of a Python function, written `!function NAME` in a benchmark's file and in lm-eval's."""


class Harness(Section):
    """One of lm-eval's own tasks, or a group of them: its prompts, examples and metrics."""

    folder: str
    """Of its YAML files, below `lm_eval/tasks`."""
    task: str
    """lm-eval's name."""
    shots: Count | None = None
    """Worked examples that this wording brings along; the benchmark's where left out."""
    needs: list[str] = []
    """As the benchmark's; where they are not there, this one is left out."""


class Split(Section):
    """Rows of one use: those that are judged, or those that examples are taken from."""

    rows: _Rows
    """How many in all subjects; several figures where there are several releases."""
    names: list[str] = []
    """What files call it, besides its own name."""
    optional: bool = False
    """Whether the benchmark can do without."""


class Choice(Section):
    """Rows are questions with four choices, in any usual columns; this is how lm-eval's prompts expect them."""

    question: str = "question"
    """Column of the question."""
    answer: str = "answer"
    """Column of the right choice."""
    form: Literal["letters", "list"]
    """Columns A to D and a letter; or a list `choices` and an index."""


class Column(Section):
    """A column that lm-eval's prompts or metrics read."""

    names: list[str] = []
    """What files call it, besides its own name."""
    type: Literal["text", "number", "list", "any"] = "text"
    """What must be in it; a number may be spelt as text."""


class Place(Section):
    """A repository, by its ids on the hubs: the same files under both."""

    huggingface: str | None = None
    """Id on Hugging Face."""
    modelscope: str | None = None
    """Id on ModelScope."""
    archive: str | None = None
    """The one file to take: an archive of plain files; the data's `files` where left out."""
    terms: str | None = None
    """What must be accepted, where, before a download."""


class Data(Section):
    """Where a benchmark's rows are, and what they look like."""

    subjects: list[str] = []
    """Its parts, as files call them; the benchmark's name where it has none."""
    splits: dict[str, Split]
    """As lm-eval calls them."""
    examples: str | None = None
    """The split that worked examples are taken from."""
    local: list[str]
    """Names that are looked for in `--data-dir`: files, archives, folders; `{split}` stands for a split."""
    files: list[str]
    """Files in an archive, a folder or a repository, the best first: `{split}` and `{subject}` stand for their names,
    `*` for any; where `{subject}` is left out, a column tells it."""
    header: list[str] = []
    """Columns of CSV files, where these do not name them."""
    choice: Choice | None = None
    """How rows of four choices are written."""
    columns: dict[str, Column] = {}
    """The columns of other rows; all others are left out."""
    places: list[Place]
    """Repositories, the best first."""
    size: Count | None = None
    """Bytes of a download."""
    licence: str | None
    """As stated; None where none is."""

    @model_validator(mode="after")
    def _read_one_way(self) -> Data:
        if bool(self.choice) == bool(self.columns):
            raise ValueError("give either `choice` or `columns`")
        return self


class AnswerTexts(Section):
    """Another reading of questions with choices: the choices are not shown, the likeliest text is the answer."""

    doc_to_text: str
    """lm-eval's template of the question."""
    doc_to_choice: str
    """lm-eval's template of the list of answers."""
    metric: str
    """lm-eval's key of the score: one that does not favour short answers."""


class Benchmark(Section):
    """A benchmark. What is not known is left out."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$")]
    """What commands and tables call it."""
    about: str
    """What it asks, in one line."""
    kind: Literal["choice", "answer", "code", "text"]
    """Judged by the likeliest answer of some, a written answer, a program that is run, or the likelihood of text."""
    aliases: list[str] = []
    """Other names that are taken for it: lm-eval's."""
    harness: list[Harness] = []
    """lm-eval's tasks; the first gives the score, further ones are other readings of the same rows."""
    config: dict[str, Any] | None = None
    """A task of ours, as lm-eval's YAML files have it, without its data."""
    shots: Annotated[Count, Field(ge=0)] = 0
    """Worked examples before each question."""
    fixed_shots: bool = False
    """Whether `--shots` cannot change them."""
    metric: str
    """lm-eval's key of the score."""
    chance: Share | None = None
    """Share that guessing gets; None where guessing gets nothing."""
    answer_texts: AnswerTexts | None = None
    """How answers are judged by their texts, on request; None where letters are all there is."""
    max_new_tokens: Positive | None = None
    """Limit of a written answer, tokens; half of a model's context where that is less."""
    chat: Literal["model", "never"] = "model"
    """Whether the chat template is used: where the model is a chat model, or never, since there is no prompt."""
    needs: list[str] = []
    """Packages as pip spells them, and files of nltk as `nltk_data/PATH`, without which it cannot be run."""
    data: Data | str | None = None
    """Its rows, or the name of the benchmark whose rows they are."""
    built_in: str | None = None
    """In place of data a function of this package, by its dotted name, that makes rows from a seed."""
    warnings: list[str] = []
    """What to mind, told on the page; what begins with `?` was recalled, not seen, and concerns who mends this file."""
    unsure: list[str] = []
    """Facts above that were recalled or reckoned, not seen."""

    @model_validator(mode="after")
    def _worded_once(self) -> Benchmark:
        if bool(self.harness) == bool(self.config):
            raise ValueError("give either `harness` or `config`")
        if bool(self.data) == bool(self.built_in):
            raise ValueError("give either `data` or `built_in`")
        return self


def benchmark_names() -> list[str]:
    """All benchmarks, those of the usual table first."""
    return [*(name for name in COLUMNS if name in _files()), *(name for name in _files() if name not in COLUMNS)]


@cache
def load_benchmark(name: str) -> Benchmark:
    """The benchmark of this name, or of lm-eval's name for it.

    Raises:
        BuddyError: there is none; names the nearest.
    """
    if name in _files():
        try:
            return Benchmark.model_validate(_read_yaml(_files()[name]))
        except ValidationError as error:
            told = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)]
            raise BuddyError(f"{_files()[name]}: {line}" for line in told) from None
    aliases = {alias: each for each in benchmark_names() for alias in load_benchmark(each).aliases}
    if name in aliases:
        return load_benchmark(aliases[name])
    near = did_you_mean(name, [*benchmark_names(), *aliases])
    raise BuddyError(f"{name}: no benchmark of this name{near}; there are {', '.join(benchmark_names())}")


def data_of(benchmark: Benchmark) -> tuple[str, Data | None]:
    """Where a benchmark's rows are, and the name of the benchmark that says so."""
    if isinstance(benchmark.data, str):
        return data_of(load_benchmark(benchmark.data))
    return benchmark.name, benchmark.data


def subjects_of(benchmark: Benchmark) -> list[str]:
    """Its parts; its rows' name where it has none."""
    name, data = data_of(benchmark)
    return data.subjects if data and data.subjects else [name]


@cache
def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def _read_yaml(path: Path) -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = type("Constructor", (yaml.Constructor,), {})
    yaml.Constructor.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))
    return yaml.load(path.read_text("utf-8"))
