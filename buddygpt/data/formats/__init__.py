"""Row shapes: what a row of a data set holds, whatever its columns are called.

`find_adapter` looks at the first rows of a file and gives the adapter that reads all of them, each into a `Text`,
a `Talk` or a `Pair`; a row that gives nothing is `Dropped` for a reason to count by, and what is changed in a row
that stays is told by its `edits`. A new shape is one adapter class, and one finder in `choice`.
"""

from buddygpt.data.formats.adapters import Adapter, PromptAdapter, TalkAdapter, TextAdapter, read_row, score_of
from buddygpt.data.formats.choice import PEEKED, TEXT_COLUMNS, find_adapter
from buddygpt.data.formats.pairs import AnswersAdapter, PairAdapter
from buddygpt.data.formats.values import (
    Dropped,
    Message,
    Pair,
    Talk,
    Text,
    Value,
    as_pair,
    as_talk,
    dump_talk,
    load_talk,
    render_text,
)

__all__ = [
    "PEEKED",
    "TEXT_COLUMNS",
    "Adapter",
    "AnswersAdapter",
    "Dropped",
    "Message",
    "Pair",
    "PairAdapter",
    "PromptAdapter",
    "Talk",
    "TalkAdapter",
    "Text",
    "TextAdapter",
    "Value",
    "as_pair",
    "as_talk",
    "dump_talk",
    "find_adapter",
    "load_talk",
    "read_row",
    "render_text",
    "score_of",
]
