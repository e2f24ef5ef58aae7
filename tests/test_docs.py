"""What the documents tell a reader to click, type, import or write into a recipe is there."""

import ast
import importlib
import inspect
import re
import shlex

import pytest
from typer.main import get_command

from buddygpt.recipe.loader import load_recipe
from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
SOURCES = [*PAGES, ROOT / "Makefile", *ROOT.glob("recipes/*.yaml")]
NOT_RECIPES = ("distributed_type", "output_type")
"""Words of YAML blocks that are of other files: accelerate's configuration, a benchmark."""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def having(language):
    """Runs a test over the pages that have blocks of a language."""
    return pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, language)], ids=lambda page: page.name)


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_are_there(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), f"{target}#{anchor}"
    for name in re.findall(
        r"(?<![\w/.])((?:tests|docs|benchmarks|buddygpt|recipes)/[\w./-]+\.(?:py|md|yaml|svg))", text
    ):
        assert (ROOT / name).exists() or "NAME" in name, name
    for name in re.findall(r"`((?:model|training|recipe)/\w+\.py)", text):
        assert (ROOT / "buddygpt" / name).exists(), name


def test_commands_parse():
    from buddygpt.cli.app import app

    command, commands = get_command(app), 0

    def quiet(one):
        one.callback = lambda **_: None
        for inner in getattr(one, "commands", {}).values():
            quiet(inner)

    quiet(command)
    for page in SOURCES:
        for line in re.findall(r"^(?:[ \t$]*(?:\S*/)?|.*-m )(buddy(?:gpt)? [^|\n]+)$", page.read_text(), re.MULTILINE):
            typed = re.sub(r" {3,}.*| +# .*|\.\.\.$", "", line)  # what stands beside it
            words = ["2" if word == "N" else word for word in shlex.split(typed)[1:]]
            command.main(words, standalone_mode=False, prog_name="buddy")
            commands += 1
    assert commands > 90


@having("python")
def test_snippets_import_what_there_is_and_call_it_as_it_is_called(page):
    for block in blocks(page, "python"):
        known = {}
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("buddygpt"):
                known |= {name.name: getattr(importlib.import_module(node.module), name.name) for name in node.names}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callable(known.get(node.func.id)):
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(known[node.func.id]).bind(*node.args, **keywords)


@having("yaml")
def test_recipes_are_sound(page, tmp_path):
    """Each block over a shipped recipe, as a reader would try it."""
    base = tmp_path / "base.yaml"
    base.write_text(f"extends: {ROOT}/recipes/0.1b.yaml\nname: base\n")
    for number, block in enumerate(blocks(page, "yaml")):
        if not any(word in block for word in NOT_RECIPES):
            file = tmp_path / f"{number}.yaml"
            extends = re.sub(r"extends: .*", f"extends: {base}", block)
            file.write_text(extends if "extends" in block else f"extends: {base}\n{block}")
            load_recipe(file)
