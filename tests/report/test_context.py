"""Figures of a longer context: numbers that can be read, the old length marked, nothing but the page's own colours."""

import re
from dataclasses import replace

import pytest

from buddygpt.report.context import FoundCell, PositionLine, needle_figure, positions_figure
from tests.report.test_page import Reader

EDGES = tuple(range(0, 1025, 64))


def line(name, bits, number=0, **more):
    return PositionLine(name, EDGES, bits, [0.01] * 16, number, **more)


BEFORE = line("none", [1.0] * 4 + [3.0] * 12, 7, dashed=True)
AFTER = line("linear", [1.1] * 16)
CELLS = [FoundCell(length, depth, 0.25 * depth) for depth in (1.0, 0.0) for length in (1024, 128, 256)]
CELLS[0] = replace(CELLS[0], share=0.5)


def test_positions_tell_both_ends_of_every_line():
    figure = positions_figure([BEFORE, AFTER], 256)
    assert [key.text for key in figure.keys] == ["none 1.000 → 3.000", "linear 1.100 → 1.100"]
    assert [(key.line, key.style) for key in figure.keys] == [(8, "dashed"), (1, "solid")]
    assert "log scale" in figure.note[1]
    for drawing in (figure.narrow, figure.wide):
        (tag, attributes), *_ = Reader(drawing).tags
        assert tag == "svg" and "linear 1.100 → 1.100" in attributes["aria-label"]


def verticals(svg):
    """Places from the left of lines that go straight up, in pixels."""
    found = re.findall(r'd="M ([\d.]+) [\d.]+\s+L ([\d.]+) [\d.]+\s*"', svg)
    return [float(a) for a, b in found if a == b]


def test_the_old_length_is_where_it_stands():
    wide = positions_figure([AFTER], 256).wide
    (place,) = verticals(wide)
    assert place == pytest.approx(50 + (920 - 62) * 256 / 1024, abs=0.5)
    (place,) = verticals(needle_figure("a", CELLS, 256, "n").narrow)
    assert place == pytest.approx(50 + (430 - 62) * 2 / 3, abs=0.5)
    assert not verticals(needle_figure("a", CELLS, 2000, "n").narrow)


def test_what_is_above_the_plot_is_told():
    figure = positions_figure([BEFORE, AFTER], 256, top=1.5)
    assert "above the plot" in figure.note[1] and "log" not in figure.note[1]
    assert "above the plot" not in positions_figure([AFTER], 256).note[1]


def test_needles_are_per_cent_by_length_across_and_depth_down():
    figure = needle_figure("linear", CELLS, 256, "n")
    texts = [t.strip() for t in Reader(figure.narrow).text if t.strip()]
    assert all(label in texts for label in ("128", "256", "1,024", "0%", "100%"))
    assert "12% → 25%" in figure.note[1] and "12% → 25%" in figure.narrow
    placed = re.findall(r'<text [^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)<', figure.narrow)
    across = {text: float(x) for x, _, text in placed}
    down = {text: float(y) for _, y, text in placed}
    cells = {(float(x), float(y)): text for x, y, text in placed if text in ("0", "25", "50")}
    expected = {(across[f"{c.length:,}"], down[f"{c.depth:.0%}"]): f"{100 * c.share:.0f}" for c in CELLS}
    assert cells == expected and across["128"] < across["256"] < across["1,024"] and down["0%"] < down["100%"]


def test_drawings_take_their_colours_from_the_page_and_hold_no_pictures():
    drawings = [needle_figure("<b>", CELLS, 256, "n").narrow, positions_figure([replace(AFTER, name="<b>")], 256).wide]
    for drawing in drawings:
        reader = Reader(drawing)
        assert {"image", "b"}.isdisjoint(tag for tag, _ in reader.tags)
        colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", " ".join(reader.attributes("style")))
        assert colours and all(c == "none" or c.startswith("var(--") for c in colours)
    assert needle_figure("<b>", CELLS, 256, "n").narrow == drawings[0]
