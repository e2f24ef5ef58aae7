"""What is done to every text and never changes what it says: NFC, plain line ends, nothing invisible, no end marker."""

from __future__ import annotations

import re
import unicodedata

END_MARKERS = ("<|endoftext|>", "<|im_end|>", "</s>")
"""Left at the end of a document by other tools; here the end is a token of its own."""

LINE_ENDS, CONTROLS, NFC, MARKERS = "line ends", "control characters", "Unicode NFC", "end markers"
"""Edits."""

_JOINING = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
"""Arabic and Syriac, Indic, Burmese, Khmer and Mongolian, whose spelling needs the joiners."""
_PICTURES = "\u2190-\u2bff\u3030\u303d\ufe0f\U0001f000-\U0001faff"
# C0 but tab and line feed, C1, soft hyphens, zero widths, marks of direction, U+FFF9..B of interlinear notes
_ALWAYS = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
_SUSPECT = re.compile(f"[\r\v\f\x85\u2028\u2029\u200c\u200d{_ALWAYS}]").search
_SUB_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]").subn
_SUB_CONTROLS = re.compile(
    f"[{_ALWAYS}]"
    # a non-joiner but between letters, a joiner but after letters or between parts of an emoji
    rf"|\u200c(?:(?<![{_JOINING}]\u200c)|(?![{_JOINING}]))"
    rf"|(?<![{_JOINING}])\u200d(?:(?<![{_PICTURES}]\u200d)|(?![{_PICTURES}]))"
).subn


def normalise(text: str) -> tuple[str, tuple[str, ...]]:
    """The text as it is stored, and the edits that made it so; doing it twice changes nothing.

    Lines end at line feeds (CRLF, CR, vertical tab, form feed, U+0085, U+2028 and U+2029 become such). Control
    characters and what has no width are taken out; joiners stay where a script or an emoji needs them. Unicode NFC,
    never NFKC, which would rewrite ，：（ and ①㎏. No white space around the text (not counted as an edit) and no
    `END_MARKERS` at its end.
    """
    edits = []
    if _SUSPECT(text):
        text, ends = _SUB_LINE_ENDS("\n", text)
        text, controls = _SUB_CONTROLS("", text)
        edits += [LINE_ENDS] * bool(ends) + [CONTROLS] * bool(controls)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        edits.append(NFC)
    text = text.strip()
    if text.endswith(END_MARKERS):
        edits.append(MARKERS)
        while text.endswith(END_MARKERS):
            text = next(text.removesuffix(m) for m in END_MARKERS if text.endswith(m)).rstrip()
    return text, tuple(edits)
