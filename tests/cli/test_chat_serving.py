"""`buddy chat --web` and `--serve`: what does not fit is told before anything is loaded."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--web --serve", "--web and --serve: one at a time"),
        ("--port 8000", "--port: is of --web and --serve"),
        ("a b --web", "--web: one model"),
        ("a b --serve", "--serve: one model"),
        ("--web --prompt 你好", "--web: --prompt answers one text and ends"),
        ("--serve --prompt 你好", "--serve: --prompt answers one text and ends"),
        ("--serve --temperature 0 --system 你好", "--serve: --system, --temperature: each client says that"),
        ("nothing --web", "nothing: no such run, folder or hub id"),
        ("nothing --serve", "nothing: no such run, folder or hub id"),
        ("--web", "runs/: no finished model"),
        ("--serve", "runs/: no finished model"),
    ],
)
def test_what_does_not_fit_is_one_line(buddy, arguments, told):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'buddygpt[web]'")
    pytest.importorskip("openai", reason="openai is not installed: pip install 'buddygpt[serve]'")
    outcome = buddy("chat", *arguments.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"buddy: {told}") and outcome.err.count("\n") == 1


@pytest.mark.parametrize("name", ["web", "serve"])
def test_missing_packages_are_one_line(buddy, name, monkeypatch):
    from buddygpt.conversation import extras

    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    outcome = buddy("chat", f"--{name}")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert outcome.err.endswith(f"is not installed: pip install 'buddygpt[{name}]'\n")
