"""From YAML files and overrides to a `Recipe`, or to all faults at once, each with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.names import fields_at, homes_of, our_name
from buddygpt.recipe.schema import Recipe

Loc = tuple[str | int, ...]
_SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|ms-[0-9a-f-]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,})")
_SECRET_KEY = re.compile(r"(^|_)(password|passwd|secret|api_?key|access_?token|auth_?token|hub_?token)$", re.IGNORECASE)


@dataclass
class Document:
    """Plain data of a recipe, and where each of its keys was written (`file.yaml:LINE`)."""

    data: dict[str, Any]
    places: dict[Loc, str]

    def place(self, loc: Loc) -> str:
        """Where `loc`, or the nearest thing around it, was written."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.places:
                return self.places[loc[:end]]
        return "recipe"


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        path: a YAML file; `extends: other.yaml` in it names a file, relative to it, that is read first.
            Mappings merge, everything else replaces.
        overrides: `section.key=value` strings, the values in YAML, applied last.

    Raises:
        BuddyError: one line for each fault, `file.yaml:LINE: section.key: what is wrong`.
    """
    document = read(Path(path))
    for override in overrides:
        _apply_override(document, override)
    return check(document)


def check(document: Document) -> Recipe:
    """Validate plain data against the schema.

    Raises:
        BuddyError: one line for each fault.
    """
    faults = [
        _line(document, loc, "looks like a secret; keep tokens in the environment or the hub's own login")
        for loc in _secrets(document.data)
    ]
    try:
        recipe = Recipe.model_validate(document.data)
    except ValidationError as error:
        lines = [_describe(document, e) for e in error.errors(include_url=False)]
        told = dict.fromkeys(_SECRET.sub("(a secret)", line) for line in faults + lines)
        raise BuddyError(sorted(told, key=_line_order)) from None
    if faults:
        raise BuddyError(faults)
    return recipe


def read(path: Path, _above: tuple[Path, ...] = ()) -> Document:
    """The file, merged over what it extends.

    Raises:
        BuddyError: no such file, not YAML, a key twice, or files that extend one another in a circle.
    """
    document = _parse(path)
    parent = document.data.pop("extends", None)
    if parent is None:
        return document
    if not isinstance(parent, str):
        raise BuddyError(_line(document, ("extends",), "must be the name of one recipe file"))
    chain = (*_above, path.resolve())
    target = path.parent / parent
    if target.resolve() in chain:
        raise BuddyError(_line(document, ("extends",), f"{parent} extends this file in turn"))
    if not target.is_file():
        raise BuddyError(_line(document, ("extends",), f"no file {target}; the name is relative to {path.name}"))
    base = read(target, chain)
    return Document(_merge(base.data, document.data), base.places | document.places)


def _parse(path: Path) -> Document:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise BuddyError(
            f"{path}: no such recipe{_near_files(path)}; `buddy recipes` lists those that come along"
        ) from None
    except IsADirectoryError:
        raise BuddyError(f"{path}: a folder, not a recipe file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BuddyError(
            f"{path}:{line}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from None
    except OSError as error:
        raise BuddyError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except DuplicateKeyError as error:
        first, second = error.context_mark.line + 1, error.problem_mark.line + 1
        key = (re.search(r'duplicate key "(.*?)"', str(error.problem)) or ["", "?"])[1]
        first = _first_line_of(text, key, first, second)
        raise BuddyError(f"{path}:{second}: {key}: given twice, first in line {first}; keep one") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BuddyError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise BuddyError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, Mapping):
        raise BuddyError(f"{path}:1: {'empty' if tree is None else 'not a mapping'}; a recipe starts with `schema: 1`")
    places: dict[Loc, str] = {(): f"{path}:1"}
    return Document(_plain(tree, (), str(path), places), places)


def _first_line_of(text: str, key: str, start: int, end: int) -> int:
    """The line between `start` and `end` (both from 1) that holds `key` first."""
    wanted = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*:""")
    lines = text.splitlines()
    return next((n for n in range(start, end) if wanted.match(lines[n - 1])), start)


def _plain(node: Any, loc: Loc, file: str, places: dict[Loc, str]) -> Any:
    """ruamel's tree as plain Python data; fills `places`."""
    if isinstance(node, Mapping):
        data = {}
        for key, value in node.items():
            name = str(key)
            places[(*loc, name)] = f"{file}:{node.lc.key(key)[0] + 1}"  # type: ignore[attr-defined]
            data[name] = _plain(value, (*loc, name), file, places)
        return data
    if isinstance(node, Sequence) and not isinstance(node, str):
        for i in range(len(node)):
            places[(*loc, i)] = f"{file}:{node.lc.item(i)[0] + 1}"  # type: ignore[attr-defined]
        return [_plain(value, (*loc, i), file, places) for i, value in enumerate(node)]
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return None if node is None else str(node)


def _merge(base: Any, over: Any) -> Any:
    """Mappings merge key by key, unless they are variants of different kinds; everything else replaces."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "kind" in over and over["kind"] != base.get("kind"):
        return over
    return base | {key: _merge(base.get(key), value) for key, value in over.items()}


def _apply_override(document: Document, override: str) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise BuddyError(f"--set {override}: write section.key=value")
    try:
        value = _plain(YAML(typ="rt", pure=True).load(text), (), "", {}) if text.strip() else None
    except YAMLError:
        raise BuddyError(f"--set {override}: the value is not YAML") from None
    change: Any = value
    loc: Loc = ()
    node: Any = document.data
    for depth, key in enumerate(keys):
        if isinstance(node, list):
            if not (key.isdigit() and int(key) < len(node)):
                raise BuddyError(
                    f"--set {override}: {'.'.join(keys[:depth])} is a list of {len(node)}; write its number, from 0"
                )
            loc, node = (*loc, int(key)), node[int(key)]
        else:
            loc, node = (*loc, key), node.get(key) if isinstance(node, dict) else None
    document.places = {k: v for k, v in document.places.items() if k[: len(loc)] != loc}
    document.places[loc] = f"--set {dotted.strip()}"
    document.data = _replaced(document.data, loc, change)


def _replaced(node: Any, loc: Loc, value: Any) -> Any:
    if not loc:
        return _merge(node, value)
    if isinstance(node, list):
        return [_replaced(item, loc[1:], value) if i == loc[0] else item for i, item in enumerate(node)]
    node = node if isinstance(node, dict) else {}
    return {**node, loc[0]: _replaced(node.get(loc[0]), loc[1:], value)}


def _secrets(node: Any, loc: Loc = ()) -> Iterable[Loc]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and value and _SECRET_KEY.search(key):
                yield (*loc, key)
            else:
                yield from _secrets(value, (*loc, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _secrets(value, (*loc, i))
    elif isinstance(node, str) and _SECRET.search(node):
        yield loc


def _line_order(fault: str) -> tuple[str, int]:
    """File, then line: faults are told in the order in which a reader meets them."""
    place = re.match(r"(.*?):(\d+): ", fault)
    return (place[1], int(place[2])) if place else (fault, 0)


def _line(document: Document, loc: Loc, message: str) -> str:
    name = ".".join(str(part) for part in loc)
    return f"{document.place(loc)}: {name + ': ' if name else ''}{message}"


def _describe(document: Document, error: Any) -> str:
    """One pydantic error as one line in the words of a recipe."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    loc = _path_in(document.data, error["loc"], missing=kind == "missing")
    cause = context.get("error")
    if kind == "missing":
        return _line(document, loc, "is missing")
    if kind == "extra_forbidden":
        return _line(document, loc, _unknown(loc))
    if kind == "union_tag_not_found":
        return _line(document, loc, f"needs `kind:`, one of {context['discriminator'] and _tags(error)}")
    if kind == "union_tag_invalid":
        tags = [t.strip(" '") for t in context["expected_tags"].split(",")]
        return _line(
            document,
            (*loc, "kind"),
            f"'{context['tag']}' is unknown; one of {', '.join(tags)}" + did_you_mean(context["tag"], tags),
        )
    if cause is not None:
        key = getattr(cause, "key", None)
        extra = tuple(int(p) if p.isdigit() else p for p in key.split(".")) if key else ()
        return _line(document, (*loc, *extra), str(cause))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _line(document, loc, f"must be a section with keys of its own, not {_show(given)}")
    if kind == "literal_error":
        return _line(
            document,
            loc,
            f"{_show(given)} is unknown; one of {context['expected']}"
            + (did_you_mean(given, re.findall(r"'(.*?)'", context["expected"])) if isinstance(given, str) else ""),
        )
    if kind == "string_pattern_mismatch":
        return _line(
            document,
            loc,
            f"{_show(given)} may hold only letters, digits, '.', '_' and '-', and starts with a letter or digit",
        )
    message = error["msg"].replace("Input should be a valid", "must be a").replace("Input should be", "must be")
    return _line(document, loc, f"{message[0].lower()}{message[1:]}, not {_show(given)}")


def _tags(error: Any) -> str:
    _, tags = fields_at(error["loc"])
    return ", ".join(tags)


def _show(value: Any) -> str:
    if isinstance(value, (dict, list, BaseModel)):
        return {"dict": "a section", "list": "a list"}.get(type(value).__name__, "a section")
    return "nothing" if value is None else repr(value)


def _path_in(data: Any, loc: Sequence[str | int], missing: bool) -> Loc:
    """pydantic's location without the union tags that it puts between the keys."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not (last and missing):
            continue
        path.append(part)
    return tuple(path)


def _unknown(loc: Loc) -> str:
    """What to say of a key that the schema does not have at this place."""
    key = str(loc[-1])
    siblings, _ = fields_at(loc[:-1])
    if key in siblings:  # a field of another variant of the same union
        return "belongs to another `kind`"
    if new := our_name(key, str(loc[0])):
        return f"is called {new} here"
    if near := did_you_mean(key, siblings):
        return f"unknown key{near}"
    if homes := homes_of(key):
        return f"unknown here; it belongs under {' or '.join(homes)}"
    return f"unknown key; known here are {', '.join(siblings)}" if siblings else "unknown key"


def _near_files(path: Path) -> str:
    folder = path.parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return did_you_mean(path.name, names)
