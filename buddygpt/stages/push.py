"""Publishing: a finished model, its card and its scores on ModelScope, Hugging Face or both."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import buddygpt
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.events import Caution, Emit, Note, Table, Text
from buddygpt.hub.settings import read_settings
from buddygpt.model.exported import see_exported
from buddygpt.model.interop import Exported, load
from buddygpt.publishing.card import make_card
from buddygpt.publishing.delivery import Plan, Pushed, deliver, plan
from buddygpt.publishing.parcel import CARD, RESULTS, Parcel, choose_files, pack
from buddygpt.publishing.remote import Remote, open_remote
from buddygpt.publishing.secrets import find_secrets, this_machine
from buddygpt.publishing.state import training_state
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.push import HubChoice, PushHub, PushSection, see_repo
from buddygpt.recipe.runs import Run, export_place, find_model, model_name, run_of

_RESULTS = ("results", "groups", "n-shot", "n-samples", "higher_is_better", "versions", "buddygpt")
"""Of lm-eval's results; the rest is prompts, code and places on this machine."""


@dataclass(frozen=True)
class Choices:
    """What the user asks for.

    Args:
        hub: where to; the recipe's `push.hub` where None.
        repo: name or owner/name; the recipe's `push.repo`, or a name after the run, where None.
        public: a repository that has to be made is for everyone.
        yes: go on without asking, except into a repository that holds something else.
        dry_run: tell what would be sent; the hubs are asked for nothing but the user's name.
        with_training_state: also send the newest checkpoint of the chapter.
    """

    hub: HubChoice | None = None
    repo: str | None = None
    public: bool = False
    yes: bool = False
    dry_run: bool = False
    with_training_state: bool = False


@dataclass(frozen=True)
class _Model:
    """A model's folder; the run and chapter that it is of, and what their recipe says, where it is of one."""

    folder: Path
    run: Run | None = None
    chapter: str = ""
    push: PushSection = field(default_factory=PushSection)
    hub: HubSection = field(default_factory=HubSection)

    @property
    def own_name(self) -> str:
        return model_name(self.folder)

    @property
    def kind(self) -> str:
        """What it is, by its last stage or else by whether it has a chat template."""
        talks = self.chapter in ("sft", "dpo") if self.run else (self.folder / "chat_template.jinja").is_file()
        return "chat" if talks else "base"


def run(
    target: str | None, runs: Path, choices: Choices, *, ask: Callable[[str], bool] | None, emit: Emit
) -> list[Pushed]:
    """Publish the model that a target names.

    Args:
        target: a model folder, a run's name or folder; the newest finished model where left out.
        runs: where runs lie.
        choices: where to and how.
        ask: puts a question; None where nobody can be asked.
        emit: who is told.

    Raises:
        BuddyError: something the user can mend, or a hub failed; the other hub was served all the same.
    """
    model = _find(target, runs)
    if target is None:
        emit(Note(f"model: {model.folder}"))
    choices = replace(
        choices,
        hub=choices.hub or model.push.hub,
        repo=choices.repo or model.push.repo or f"{model.own_name}-{model.kind}",
        public=choices.public or model.push.public,
    )
    faults: list[BuddyError] = []
    doors = _doors(model, choices, faults, emit)
    with tempfile.TemporaryDirectory(prefix="buddy-push-") as scratch:
        parcel = _pack(model, choices, {hub: repo for hub, (_, _, repo) in doors.items()}, Path(scratch), emit)
        if choices.dry_run:
            return []
        agreed, pushed = [], []
        for remote, login, repo in doors.values():
            assert remote is not None
            try:
                planned = plan(remote, repo, login, parcel, public=choices.public, license=model.push.license)
                agreed.append(_agree(planned, choices, ask, emit))
            except BuddyError as error:
                faults.append(error)
        for one in agreed:
            try:
                pushed.append(deliver(one, f"{model.own_name} by buddygpt {buddygpt.__version__}", emit))
            except BuddyError as error:
                if error.exit_code == 130:  # Ctrl-C means all
                    raise
                faults.append(error)
    if pushed:
        rows = ((p.hub, p.repo, p.visibility, str(p.files), spell_bytes(p.bytes), p.address) for p in pushed)
        emit(Table("", ("hub", "repository", "visibility", "files", "sent", "address"), tuple(rows)))
    if faults:
        raise _together(faults)
    return pushed


def _find(target: str | None, runs: Path) -> _Model:
    folder = find_model(target, runs)
    if isinstance(folder, str):
        raise BuddyError(f"{folder}: is on a hub already; push a run, or a folder of a model")
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if (run := run_of(folder)) is None:
        return _Model(folder)
    recipe = load_recipe(run.path / "recipe.yaml")
    return _Model(folder, run, folder.absolute().parent.name, recipe.push, recipe.hub)


def _doors(
    model: _Model, choices: Choices, faults: list[BuddyError], emit: Emit
) -> dict[PushHub, tuple[Remote | None, str, str]]:
    """Each hub that lets us in, our name there, and the whole name of the repository.

    Raises:
        BuddyError: none does.
    """
    hubs: Sequence[PushHub]
    if choices.hub is None:
        raise BuddyError("--hub: say modelscope, huggingface or both, here or as push.hub in the run's recipe")
    hubs = get_args(PushHub) if choices.hub == "both" else (choices.hub,)
    try:
        repo = see_repo(str(choices.repo))
    except ValueError as error:
        raise BuddyError(f"--repo: {error}") from None
    settings = read_settings(model.hub)
    doors: dict[PushHub, tuple[Remote | None, str, str]] = {}
    for hub in hubs:
        remote: Remote | None = None  # a dry run goes on without
        try:
            remote = open_remote(hub, settings)
            login = remote.login()
        except BuddyError as error:
            if not choices.dry_run:
                faults.append(error)
                continue
            emit(Note(f"{error}: your name there is not known"))
            login = "<login>"
        doors[hub] = remote, login, repo if "/" in repo else f"{login}/{repo}"
    if not doors:
        raise _together(faults)
    return doors


def _pack(model: _Model, choices: Choices, places: dict[PushHub, str], scratch: Path, emit: Emit) -> Parcel:
    """All files of the push, none of which holds a secret.

    Raises:
        BuddyError: one does, or the model cannot be published.
    """
    exported = _native(model, emit)
    card = make_card(model.folder, model.run, exported, places, model.push.license)
    files, left = choose_files(exported.folder)
    written = {CARD: card.text.encode(), **card.pictures}
    if card.scored:
        results = _results(model)
        written[RESULTS] = json.dumps(results, indent=1, ensure_ascii=False).encode() + b"\n"
    for name, content in written.items():
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[name] = path
    if choices.with_training_state:
        if not model.run:
            raise BuddyError(f"{model.folder}: lies in no run, so there is no training state to send")
        files |= training_state(model.run.chapter(model.chapter), scratch)
    parcel = pack(files)
    public = {word for repo in places.values() for word in repo.split("/")}
    machine = this_machine(exported.folder, model.folder, scratch, public=public)
    if found := find_secrets(parcel.items, machine):
        raise BuddyError([f"{line}: nothing was sent; remove it there, and push again" for line in found])
    if left:
        emit(Note(f"stays here: {', '.join(left)}"))
    if choices.dry_run:
        emit(Text(CARD, card.text))
    title = ", ".join(f"{hub}: {repo}" for hub, repo in places.items())
    rows = [(item.name, spell_bytes(item.size)) for item in parcel.items]
    emit(Table(title, ("file", "size"), (*rows, (f"{len(rows)} files", spell_bytes(parcel.size)))))
    for caution in card.cautions:
        emit(Caution(caution))
    return parcel


def _native(model: _Model, emit: Emit) -> Exported:
    """The model as one of transformers' own: exported, or as it lies there."""
    folder = model.folder
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (ValueError, AttributeError, OSError):
        raise BuddyError(f"{folder}: its config.json cannot be read") from None
    if kind != "buddygpt":
        loaded = load(folder)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        dtype = str(loaded.dtype).removeprefix("torch.")
        return Exported(folder, type(loaded).__name__, loaded.num_parameters(), dtype, size, 0.0, 0.0)
    return see_exported(folder, export_place(folder, "hf"), load_tokenizer(str(folder)), emit)


def _results(model: _Model) -> dict[str, Any]:
    """What `buddy eval` found of these weights, without what is of this machine."""
    assert model.run is not None
    told = json.loads((model.run.path / "eval" / model.chapter / "results.json").read_text("utf-8"))
    told["buddygpt"].pop("facts", None)  # where its rows lay
    return {key: told[key] for key in _RESULTS if key in told}


def _agree(asked: Plan, choices: Choices, ask: Callable[[str], bool] | None, emit: Emit) -> Plan:
    """The plan, where its owner knows what it does.

    Raises:
        BuddyError: nobody could be asked, or the answer was no.
    """
    if not asked.remarks:
        return asked
    told = "; ".join(asked.remarks)
    what = f"{len(asked.items)} files, {spell_bytes(asked.bytes)}"
    if choices.yes and not asked.foreign:
        emit(Note(f"{asked.place}: {told}"))
        return asked
    if ask is None:
        way = "push there from a terminal, or choose another --repo" if asked.foreign else "--yes agrees"
        raise BuddyError(f"{asked.place}: {told}: nobody can be asked here; {way}")
    if not ask(f"{asked.place}: {told}. Publish {what} there, {asked.seen_by}?"):
        raise BuddyError(f"{asked.place}: not pushed")
    return asked


def _together(faults: Sequence[BuddyError]) -> BuddyError:
    """One error of several, with the graver exit code."""
    if len(faults) == 1:
        return faults[0]
    error = BuddyError([line for fault in faults for line in fault.lines])
    error.exit_code = min(fault.exit_code for fault in faults)
    return error
