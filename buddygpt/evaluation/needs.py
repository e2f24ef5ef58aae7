"""What a benchmark needs besides its rows: packages, and files of nltk. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NLTK = "nltk_data/"
_PUNKT = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
"""The instructions of IFEval that lm-eval checks with nltk's punkt: by sentences, and by words."""


def lacking(needs: Sequence[str]) -> str | None:
    """What is not there of what is needed, and how to get it; None where all is there.

    Args:
        needs: packages as pip spells them, and files of nltk as `nltk_data/PATH`.
    """
    packages = [need for need in needs if not need.startswith(_NLTK) and not _installed(need)]
    if packages:
        return f"needs {', '.join(packages)}; install with `pip install {' '.join(map(_quoted, packages))}`"
    for path in (need.removeprefix(_NLTK) for need in needs if need.startswith(_NLTK)):
        if not _in_nltk(path):
            name = path.rpartition("/")[2]
            return (
                f"needs nltk's {name}; fetch it with `python -m nltk.downloader {name}`, or unpack {name}.zip of "
                f"github.com/nltk/nltk_data in ~/nltk_data/{path.rpartition('/')[0]}"
            )
    return None


def needs_punkt(row: Mapping[str, Any]) -> bool:
    """Whether an item of IFEval can only be judged with nltk's punkt_tab."""
    return any(instruction in _PUNKT for instruction in row["instruction_id_list"])


def _installed(need: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    wanted = Requirement(need)
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _quoted(need: str) -> str:
    return f'"{need}"' if set(need) & set("<>=*") else need


def _in_nltk(path: str) -> bool:
    import nltk

    try:
        nltk.data.find(path)
    except LookupError:
        return False
    return True
