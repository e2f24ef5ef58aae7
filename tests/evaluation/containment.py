"""Where programs of a model cannot be contained, what runs them is skipped, and pytest says why."""

import pytest

from buddygpt.evaluation.sandbox.protections import protections
from buddygpt.recipe.errors import BuddyError


def _lacking() -> str:
    try:
        protections()
    except BuddyError as error:
        return str(error)
    return ""


needs_containment = pytest.mark.skipif(bool(_lacking()), reason=_lacking() or "contained")
