"""Figures as SVG files that need no page around them, as in the README of a repository."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup

from buddygpt.report.figures import Figure

_MARGIN, _HEAD, _KEY = 24, 34, 24
_KEYS_IN_ROW = 4


def stand_alone(figures: Sequence[Figure], columns: int = 1) -> str:
    """One SVG document of the figures' drawings, side by side in rows, with titles, legends and the page's colours.

    Args:
        figures: all of the first one's size and number of legend lines; the wide drawing is taken where there is one.
        columns: in a row.
    """
    drawings = [figure.wide or figure.narrow for figure in figures]
    width, height = _size(drawings[0])
    key_rows = -(-max(len(f.keys) for f in figures) // _KEYS_IN_ROW)
    cell = height + _HEAD + key_rows * _KEY + _MARGIN
    parts = []
    for i, (figure, drawn) in enumerate(zip(figures, drawings, strict=True)):
        x, y = _MARGIN + i % columns * (width + _MARGIN), _MARGIN + i // columns * cell
        parts.append(Markup('<text x="{}" y="{}" class="title">{}</text>').format(x, y + 12, figure.english))
        parts.append(
            drawn.replace("<svg ", Markup(f'<svg x="{x}" y="{y + _HEAD}" width="{width}" height="{height}" '), 1)
        )
        for k, key in enumerate(figure.keys):
            left, top = x + k % _KEYS_IN_ROW * width // _KEYS_IN_ROW, y + _HEAD + height + 8 + k // _KEYS_IN_ROW * _KEY
            dashes = Markup(' stroke-dasharray="4 3"') if key.style == "dashed" else ""
            parts.append(
                Markup('<path d="M {} {} h 22" stroke="var(--line-{})" stroke-width="2"{}/>').format(
                    left, top, key.line, dashes
                )
            )
            parts.append(Markup('<text x="{}" y="{}" class="key">{}</text>').format(left + 30, top + 4, key.text))
    whole = (columns * (width + _MARGIN) + _MARGIN, -(-len(figures) // columns) * cell + _MARGIN)
    opening = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {} {}">'
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return "\n".join([opening.format(*whole), f"<style>{_style()}</style>", paper, *parts, "</svg>\n"])


def _size(drawing: Markup) -> tuple[int, int]:
    width, height = drawing.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    return int(width), int(height)


def _style() -> str:
    """The page's colours, for light and dark, and the three kinds of text."""
    colours = files("buddygpt.report").joinpath("page.css").read_text("utf-8").partition("* {")[0]
    return colours + (
        "text { font-family: sans-serif; font-size: 12px } "
        ".title { font-size: 14px; font-weight: 600; fill: var(--ink) } .key { font-size: 13px; fill: var(--ink) }"
    )
