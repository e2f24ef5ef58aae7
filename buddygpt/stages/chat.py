"""Opening a talk with the model that the user means."""

from __future__ import annotations

from pathlib import Path

import torch

from buddygpt.conversation.talk import Conversation
from buddygpt.data.tokenizer import largest_id, load_tokenizer
from buddygpt.events import Emit, Note
from buddygpt.hub.presence import see_model
from buddygpt.model.interop import load
from buddygpt.model.sampling import Sampling
from buddygpt.model.shortlist import make_shortlist
from buddygpt.recipe.runs import find_model


def open_conversation(target: str | None, runs: Path, sampling: Sampling, emit: Emit) -> Conversation:
    """Load what the user means and begin a talk.

    Args:
        target: a model folder, a run's name or folder, a hub id; the newest finished model where left out.
        runs: where runs lie.

    Raises:
        BuddyError: there is no such model, or its files are damaged.
    """
    folder = find_model(target, runs)
    if target is None:
        emit(Note(f"model: {folder}"))
    if isinstance(folder, str):
        see_model(folder)
    tokenizer = load_tokenizer(str(folder))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = load(folder).to(device).eval()
    shortlist = make_shortlist(model, largest_id(tokenizer) + 1)
    return Conversation(model, tokenizer, sampling, emit, shortlist=shortlist)
