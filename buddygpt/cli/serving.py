"""`buddy chat --web` and `buddy chat --serve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from buddygpt.model.sampling import Sampling

PAGE, SERVER, PORT = "--web", "--serve", "--port"
OF_REQUESTS = ("system", "max_new_tokens", "temperature", "top_p", "seed")


def see_fits(context: typer.Context, targets: Sequence[str] | None) -> str | None:
    """Which of `--web` and `--serve` was asked for, if one, and that nothing was given which it would not heed.

    Raises:
        BuddyError: something was.
    """
    given = [name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"]  # type: ignore[union-attr]
    kinds = [kind for kind in (PAGE, SERVER) if kind[2:] in given]
    if not kinds:
        if "port" in given:
            raise BuddyError(f"{PORT}: is of {PAGE} and {SERVER}")
        return None
    if len(kinds) == 2:
        raise BuddyError(f"{PAGE} and {SERVER}: one at a time; two commands may run beside each other")
    (kind,) = kinds
    if len(targets or ()) > 1:
        raise BuddyError(f"{kind}: one model; two answer side by side in the terminal only")
    if "prompt" in given:
        raise BuddyError(f"{kind}: --prompt answers one text and ends; leave one of them out")
    if kind == SERVER and (theirs := [f"--{name.replace('_', '-')}" for name in OF_REQUESTS if name in given]):
        raise BuddyError(f"{SERVER}: {', '.join(theirs)}: each client says that with its request; leave it out")
    return kind


def run(kind: str, target: str | None, system: str, sampling: Sampling, port: int | None) -> None:
    """The page or the server, until Ctrl-C."""
    from buddygpt.stages import chat

    emit = Renderer().emit
    if kind == PAGE:
        chat.serve_page(target, options.RUNS, system=system, sampling=sampling, port=port, emit=emit)
    else:
        chat.serve_api(target, options.RUNS, port, emit)
