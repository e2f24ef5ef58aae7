"""The card: true to the run, the same in both languages, accepted by the hub's client, silent about the machine."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from buddygpt.publishing.card import make_card
from buddygpt.publishing.frontmatter import front_matter_faults, spell_front_matter
from buddygpt.publishing.recipes import public_recipe
from buddygpt.publishing.sources import describe, public_name
from buddygpt.publishing.story import read_story
from buddygpt.recipe.data import FilesSource, source_name
from buddygpt.recipe.runs import run_of
from tests.publishing.told_runs import SCORE, exported, recipe, write_model, write_run

PLACES = {"huggingface": "ann/sage-chat", "modelscope": "ann/sage"}


@pytest.fixture
def card(tmp_path):
    """The card of a told run; what is given goes to `write_run` and `make_card`."""

    def make(told=None, licence=None, places=PLACES, **more):
        model = write_run(tmp_path / "runs" / "sage", told, **more)
        return make_card(model, run_of(model), exported(tmp_path / "hf"), places, licence)

    return make


def halves(text):
    """The Chinese and the English part, without front matter and recipe."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).partition("<details>")[0]
    chinese, _, english = body.partition("## English")
    return chinese, english


def tables(text):
    """Cells of each table's rows, heads first, as a reader of Markdown sees them."""
    found, row = [], []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for token, after in zip(tokens, tokens[1:] + tokens[-1:]):
        if token.type == "table_open":
            found.append([])
        if token.type == "tr_open":
            row = []
            found[-1].append(row)
        if token.type in ("td_open", "th_open"):
            row.append(after.content)
    return found


def row(text, head):
    """The cells beside a head."""
    (found,) = [cells for table in tables(text) for cells in table if cells[0] == head]
    return found[1:]


def test_figures_are_the_runs(card):
    text = card(licence="mit").text
    chinese, english = halves(text)
    assert row(english, "tokens read") == ["40,000", "12,000", "8,000"] and row(english, "steps") == ["100", "30", "20"]
    assert row(english, "a step") == ["400 tokens", "8 windows", "8 pairs"]
    assert (
        row(english, "hardware") == ["8 × cuda (NVIDIA H100)"] * 3
        and row(english, "peak memory of a process") == ["70 GB"] * 3
    )
    assert row(chinese, "用时（不含评测和保存）") == ["50.0 s", "15.0 s", "10.0 s"]
    assert (
        row(chinese, "留出数据")[0] == "demo：每字符 1.234 比特（5-gram 模型 1.900）；wikipedia-zh：每字符 4.500 比特"
    )
    assert row(english, "held out")[2] == "pairs.jsonl: 81.2% of the pairs judged right"
    assert row(english, "facts held out")[:3] == ["25.0%", "75.0%", "25.0%"]
    assert row(english, "stops by itself")[:3] == ["50.0%", "50.0%", "100.0%"]
    assert "torch 2.13.0, git abc1234" in english and "Licence of the weights: mit" in english


def test_data_stand_with_licence_counts_and_contamination(card):
    made = card()
    _, english = halves(made.text)
    (data,) = [table for table in tables(english) if "licence" in table[0]]
    names = [cells[1] for cells in data[1:]]
    assert "(https://huggingface.co/datasets/tatsu-lab/alpaca)" in names[2] and names[3] == "pairs.jsonl (own files)"
    assert [cells[2] for cells in data[1:]] == [
        "cc-by-sa-3.0 and gfdl", "no text of third parties", "cc-by-nc-4.0; non-commercial", "not stated",
    ]  # fmt: skip
    assert data[1][3:] == ["900", "50,000", "0.20"] and data[4][3:] == ["123", "4,567", "1.00"]
    (kept_out,) = [table for table in tables(english) if "documents left out" in table[0]]
    assert kept_out[1:] == [["pretraining", "ceval", "1,346", "12"]]
    assert "not searched for items of evaluation sets: fine-tuning, preference tuning." in english
    told = ("training data alpaca: cc-by-nc-4.0; non-commercial", "training data pairs.jsonl states no licence")
    assert made.cautions[:2] == told and all(f"> - {line}" in english for line in told)
    assert made.cautions[2:] == ("no licence for the weights: name one in the recipe's push.license",)


def test_scores_stand_with_chance_settings_and_what_to_mind(card):
    chinese, english = halves(
        card(scores=(SCORE, replace(SCORE, task="demo", value=0.9, above_chance=True, cut=0))).text
    )
    told = ["acc", "26.12", "± 0.82", "25", "11,582", "5", "yes", "not above chance; 7 prompts cut to fit the context"]
    assert row(english, "cmmlu") == told
    assert row(chinese, "cmmlu")[-1] == "不高于随机；7 个提示放不下，被截短"
    assert row(english, "demo")[-1].startswith("four choices about the invented town")
    assert "Settings: lm-eval 0.4.13, bf16, cuda, 2026-11-26." in english


def test_both_languages_tell_the_same_tables_and_figures(card):
    chinese, english = halves(card().text)
    ours, theirs = tables(chinese), tables(english)
    assert [[len(cells) for cells in table] for table in ours] == [[len(cells) for cells in table] for table in theirs]
    for a, b in zip(ours, theirs, strict=True):
        for left, right in zip(a, b, strict=True):
            assert [sorted(re.findall(r"\d[\d.,]*\d|\d", cell)) for cell in left] == [
                sorted(re.findall(r"\d[\d.,]*\d|\d", cell)) for cell in right
            ]
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", chinese) == re.findall(r"!\[[^]]*\]\(([^)]*)\)", english)
    assert not re.search(r"[一-鿿]", re.sub(r'"你好"|中文', "", english))


def test_the_same_run_gives_the_same_bytes_and_every_picture_is_sent_and_shown(card, tmp_path):
    first = card()
    model = tmp_path / "runs" / "sage" / "dpo" / "model"
    assert make_card(model, run_of(model), exported(tmp_path / "hf"), PLACES) == first
    assert set(re.findall(r"\]\((figures/[^)]*)\)", first.text)) == set(first.pictures) and len(first.pictures) == 3
    for png in first.pictures.values():
        with Image.open(io.BytesIO(png)) as picture:
            pixels = np.asarray(picture.convert("RGBA"))
        assert (pixels[..., 3] == 255).all() and (pixels[0, 0] == 255).all() and len(np.unique(pixels)) > 20


def test_front_matter_is_read_back_by_the_hubs_client_without_holes(card):
    data = ModelCard(card(licence="Apache-2.0").text).data.to_dict()
    assert data == {
        "language": ["zh", "en"], "license": "apache-2.0", "library_name": "transformers", "tasks": ["text-generation"],
        "pipeline_tag": "text-generation", "frameworks": ["pytorch"], "tags": ["buddygpt", "conversational"],
        "datasets": ["wikimedia/wikipedia", "tatsu-lab/alpaca"],
    }  # fmt: skip
    assert front_matter_faults(data) == []


def test_a_model_of_local_files_names_no_data_set_no_base_and_no_licence(card):
    told = recipe(**{"data.sources": [{"kind": "files", "paths": ["pairs.jsonl"]}]})
    made = card(told, stages=("pretrain",))
    data = ModelCard(made.text).data.to_dict()
    assert data.keys() == {"library_name", "pipeline_tag", "tasks", "frameworks", "tags"}
    assert "goes on with a text" in made.text and "apply_chat_template" not in made.text


def test_a_foreign_base_is_named_in_front_matter_and_cautions(card):
    told = recipe(**{"sft.model": "Qwen/Qwen3-0.6B"})
    made = card(told, stages=("sft",), done={"sft": {"hub_model": "Qwen/Qwen3-0.6B"}})
    assert ModelCard(made.text).data.base_model == "Qwen/Qwen3-0.6B"
    assert "made from Qwen/Qwen3-0.6B; its licence holds too" in made.cautions
    assert "trained from scratch" not in made.text.lower() and "vocab_size" not in made.text


@pytest.mark.parametrize(
    "fields, fault",
    [
        ({"license": None}, "license: empty"),
        ({"datasets": []}, "datasets: empty"),
        ({"datasets": ["data/x/y"]}, "is no owner/name"),
        ({"datasets": ["corpus.jsonl"]}, "is no owner/name"),
        ({"base_model": "/home/mallory/base"}, "is no owner/name"),
        ({"language": ["Chinese"]}, "is no code"),
        ({"license": "Apache License 2.0"}, "is not known to the hub"),
        ({"license": "other"}, "needs a license_name"),
        ({"tags": ["a", 1]}, "not text"),
    ],
)
def test_fields_that_a_hub_would_refuse_are_found(fields, fault):
    assert any(fault in line for line in front_matter_faults(fields))
    with pytest.raises(ValueError, match=re.escape(fault)):
        spell_front_matter(fields)


def test_an_unusual_licence_is_other_with_a_name(card):
    data = ModelCard(card(licence="LicenseRef-Sage-1.0").text).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "licenseref-sage-1.0")


def test_a_folder_of_no_run_gives_a_shorter_card_without_invented_facts(tmp_path):
    model = write_model(tmp_path / "somewhere")
    made = make_card(model, None, exported(tmp_path / "hf"), {"modelscope": "ann/sage"})
    chinese, english = halves(made.text)
    assert made.pictures == {} and len(tables(chinese)) == 1 and "from_pretrained" in english
    for words in ("### Data", "### Training", "from scratch", "<details>", "transformers serve", "made by buddygpt"):
        assert words not in made.text
    assert "No scores are recorded." in english and "somewhere" not in made.text
    assert made.cautions[0] == "the model lies in no run: its card tells neither data nor training"


def test_scores_of_other_weights_are_left_out_and_told(card, tmp_path):
    card()
    model = tmp_path / "runs" / "sage" / "dpo" / "model"
    with (model / "model.safetensors").open("ab") as file:
        file.write(b" ")
    made = make_card(model, run_of(model), exported(tmp_path / "hf"), PLACES)
    assert "cmmlu" not in made.text and any("of other weights" in line for line in made.cautions)


def test_names_cannot_break_a_table_or_bring_in_markup(card):
    name = "a|b <img src=x> *c* [d](e) `f`.jsonl"
    sources = [{"kind": "files", "paths": [name], "name": name}]
    text = card(recipe(**{"dpo.data": {"sources": sources}})).text
    for table in tables(halves(text)[1]):
        assert len({len(cells) for cells in table}) == 1
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(halves(text)[1])
    assert "<img src=x" not in html and "<em>c</em>" not in html and 'href="e"' not in html
    assert "a|b &lt;img src=x&gt; *c* [d](e) `f`.jsonl" in html


HIDING = ["/home/mallory/{}", "/Users/mallory/x/{}", "~mallory/{}", "C:\\Users\\mallory\\{}", "file:///srv/mallory/{}",
          "../mallory/{}", "mallory/{}", "//host-mallory/share/{}"]  # fmt: skip


@pytest.mark.parametrize("place", HIDING)
def test_nothing_of_the_machine_is_in_the_card(card, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    private = place.format("part")
    told = recipe(
        **{
            "name": "sage",
            "tokenizer": {"base": private},
            "hub": {"bundle": private},
            "data.sources": [
                {"kind": "files", "paths": [place.format("news.jsonl"), private]},
                {"kind": "files", "paths": [private], "name": private},
                {"kind": "files", "paths": [private + "2"]},
            ],
            "data.decontaminate": {"paths": [place.format("ceval.zip"), private]},
            "data.executor": {"kind": "slurm", "partition": "mallory", "setup": f"source {private}"},
            "pretrain.prompts": [f"see {private}"],
            "sft.model": private,
        }
    )
    model = write_run(tmp_path / "mallory-runs" / "mallory", told)
    made = make_card(model, run_of(model), exported(tmp_path / "mallory-hf"), PLACES)
    base = make_card(  # the stage that reads all these sources
        write_model(tmp_path / "mallory-runs" / "mallory" / "pretrain" / "model"),
        run_of(tmp_path / "mallory-runs" / "mallory" / "pretrain" / "model"), exported(tmp_path / "hf"), PLACES,
    )  # fmt: skip
    for one in (made, base):
        told = one.text + " ".join([*one.pictures, *one.cautions])
        assert "mallory" not in told and str(tmp_path) not in told and "file://" not in told
    assert "news.jsonl" in base.text and "ceval.zip" in base.text and "(local)" in base.text


WORDS = st.text("abcdefgh南北 -_.", min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=3), st.sampled_from(["/", "\\", "~/", "C:\\", "file://", "./", ""]), st.booleans())
def test_folders_of_a_path_never_have_a_name(folders, front, windows):
    part = "\\" if windows else "/"
    path = front + part.join(["zmalloryz", *folders, "zmalloryz"])
    source = FilesSource(kind="files", paths=[path, path + part + "text.jsonl"])
    assert "mallory" in source_name(source) or folders or front
    assert public_name(source, 1) == "text.jsonl"
    assert "mallory" not in str(describe(source, 1, None).name)


def test_the_public_recipe_is_yaml_and_keeps_what_decides_the_model(card, tmp_path):
    from ruamel.yaml import YAML

    card()
    model = tmp_path / "runs" / "sage" / "dpo" / "model"
    told = YAML(typ="safe").load(public_recipe(read_story(model, run_of(model)).stages))
    assert list(told) == ["schema", "name", "model", "tokenizer", "data", "pretrain", "sft", "dpo"]
    assert told["pretrain"]["optimizer"]["kind"] == "muon" and told["dpo"]["data"]["sources"][0]["paths"] == [
        "pairs.jsonl"
    ]
    assert "executor" not in json.dumps(told)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base model really trained, for two steps."""
    from buddygpt.events import silent
    from buddygpt.recipe.loader import load_recipe
    from buddygpt.recipe.runs import Run
    from buddygpt.stages import pretrain
    from tests.conftest import ROOT, TOY

    root = tmp_path_factory.mktemp("trained")
    run = Run(root / "runs" / "toy")
    pretrain.run(
        load_recipe(ROOT / "recipes" / "tiny.yaml", [*TOY, "name=toy"]),
        run,
        cache=root / "cache",
        resume=False,
        emit=silent,
    )
    return run.chapter("pretrain") / "model"


def test_a_trained_run_tells_hardware_versions_and_the_epochs_of_its_report(trained, tmp_path):
    from buddygpt.data.tokenizer import load_tokenizer
    from buddygpt.model.interop import export, load

    done = export(load(trained), tmp_path / "hf", "auto", load_tokenizer(str(trained)))
    text = make_card(trained, run_of(trained), done, {"huggingface": "ann/toy-base"}).text
    chinese, english = halves(text)
    record = json.loads((trained.parent / "done.json").read_text("utf-8"))["made_on"]
    assert (record["kind"], record["processes"]) == ("cpu", 1) and record["peak_bytes"] > 2**27
    assert row(english, "hardware") == [f"CPU ({record['name']})"] and f"torch {record['versions']['torch']}" in english
    (data,) = [table for table in tables(english) if "epochs" in table[0]]
    assert f"{data[1][5]} epochs" in (trained.parent / "report.html").read_text("utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", chinese, re.DOTALL) if "from_pretrained" in block]
    printed = []
    exec(code, {"name": str(tmp_path / "hf"), "print": printed.append})
    (said,) = printed
    assert said.startswith("春天来了，") and len(said) > len("春天来了，")
