"""What the hubs have of all that is wanted: asked at the same time and briefly, before anything else is done.

A recipe whose data cannot be had fails within seconds, with one line a source. Files are taken at the commit found
then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from functools import partial

from buddygpt.hub.bundle import read_bundle
from buddygpt.hub.hubs import open_hubs
from buddygpt.hub.protocol import Hub, NoAnswer, NoRevision
from buddygpt.hub.settings import read_settings
from buddygpt.hub.threads import start
from buddygpt.hub.wanted import HubFile, HubFiles, Repository, Wanted
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubName, HubSection

PATIENCE = 8.0
"""Seconds after which a hub without an answer counts as unreachable, name look-up and retries included."""


def resolve(
    wanted: Mapping[int, Wanted], section: HubSection, earlier: Mapping[int, HubFiles] | None = None
) -> tuple[dict[int, HubFiles], list[str]]:
    """List the matching files of all that is wanted, each at the commit that its revision stands for now.

    Each is asked of the first hub; of the next where that one does not have it or does not answer.

    Args:
        wanted: by place, as the caller counts.
        section: the recipe's.
        earlier: answers of another time, taken where no hub answers.

    Returns:
        The answers, and a line for each that is not what it seems.

    Raises:
        BuddyError: one line for each that cannot be had: which, how large, why not, and what to do.
    """
    settings = read_settings(section)
    if settings.bundle:
        return read_bundle(settings.bundle, wanted), []
    earlier = earlier or {}
    answers: dict[int, HubFiles] = {}
    refusals: dict[int, dict[HubName, NoAnswer]] = {place: {} for place in wanted}
    faults: dict[int, str] = {}
    for hub in open_hubs(settings).values():
        asked = {place: _fitting(question, hub, refusals[place]) for place, question in wanted.items()}
        open_ = {p: r for p, r in asked.items() if r is not None and p not in answers and p not in faults}
        futures = {place: start(partial(hub.list, repository)) for place, repository in open_.items()}
        wait(futures.values(), timeout=PATIENCE)
        for place, future in futures.items():
            try:
                if not future.done():
                    raise NoAnswer(f"no answer within {PATIENCE:g} seconds", passing=True)
                commit, files = future.result()
                answers[place] = _choose(wanted[place], hub.name, commit, files)
            except NoAnswer as refusal:
                refusals[place][hub.name] = refusal
            except BuddyError as error:
                faults[place] = wanted[place].fault(str(error))
    cautions = []
    for place, question in wanted.items():
        if place in answers:
            cautions += _remarks(answers[place], refusals[place], earlier.get(place))
        elif place not in faults:
            reasons = "; ".join(f"{hub}: {refusal}" for hub, refusal in refusals[place].items())
            if place in earlier and any(refusal.passing for refusal in refusals[place].values()):
                answers[place] = earlier[place]
                cautions.append(
                    f"{earlier[place].id}: no hub answers ({reasons}); taking the files of commit "
                    f"{earlier[place].commit[:20]}, as last time"
                )
            else:
                faults[place] = question.fault(reasons or "it is on none of the hubs asked; see hub.order")
    if faults:
        raise BuddyError(faults[place] for place in sorted(faults))
    return answers, cautions


def _fitting(question: Wanted, hub: Hub, refusals: Mapping[HubName, NoAnswer]) -> Repository | None:
    """Where to look on a hub; None where it is not, or cannot be at the revision that another hub says is none."""
    if hub.name == "modelscope" and any(isinstance(refusal, NoRevision) for refusal in refusals.values()):
        return None
    return question.repository(hub.name)


def _choose(question: Wanted, hub: HubName, commit: str, files: Sequence[HubFile]) -> HubFiles:
    chosen = question.choose(files)
    if not chosen:
        shown = ", ".join(sorted(file.name for file in files)[:5])
        raise BuddyError(f"none of its {len(files)} files matches {', '.join(question.files)}; there are {shown} ...")
    return HubFiles(question, hub, commit, chosen)


def _remarks(answer: HubFiles, refusals: Mapping[HubName, NoAnswer], earlier: HubFiles | None) -> list[str]:
    """What is worth a line about an answer that another hub than the preferred one, or than last time's, gave."""
    if not refusals:
        return []
    reasons = "; ".join(f"{hub}: {refusal}" for hub, refusal in refusals.items())
    told = [f"{answer.id}: taken from {answer.hub} ({reasons})"]
    if answer.hub == "modelscope" and answer.wanted.revision != "main":
        told.append(f"{answer.id}: {answer.hub} was asked for its default branch, not for {answer.wanted.revision}")
    if earlier and {(f.name, f.size) for f in earlier.files} != {(f.name, f.size) for f in answer.files}:
        told.append(f"{answer.id}: {answer.hub} has other files than {earlier.hub} had last time")
    return told
