"""`buddy push` from a target to a hub in memory: what goes, under which name, and who is asked before."""

import json
import shutil

import pytest

from buddygpt.data.fingerprints import hash_weights
from buddygpt.events import Caution, Note, Table, Text
from buddygpt.publishing import delivery
from buddygpt.recipe.errors import BuddyError, Stopped
from buddygpt.stages import push as stage
from buddygpt.stages.push import Choices
from tests.publishing.memory import Memory
from tests.publishing.test_secrets import PLANTED
from tests.publishing.toys import write_run

FILES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("finished") / "runs"
    write_run(runs)
    return runs


@pytest.fixture
def runs(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def hubs(monkeypatch):
    """Two hubs in memory, in place of the real ones."""
    made = {hub: Memory(hub) for hub in ("modelscope", "huggingface")}
    monkeypatch.setattr(stage, "open_remote", lambda hub, settings: made[hub])
    monkeypatch.setattr(delivery, "_LOOKS", (0.0,))
    return made


@pytest.fixture
def hub(hubs):
    return hubs["huggingface"]


@pytest.fixture
def push(runs, hubs):
    """Push with `--yes` to Hugging Face, unless told otherwise; what was told is in `push.told`."""

    def run(target=None, ask=None, **choices):
        run.told = []
        choices = {"hub": "huggingface", "yes": ask is None} | choices
        return stage.run(target, runs, Choices(**choices), ask=ask, emit=run.told.append)

    return run


def sent(hub):
    return [write for write in hub.writes if write[0] == "send"]


def texts(push, kind):
    return [event.text for event in push.told if isinstance(event, kind)]


def test_a_run_becomes_a_private_repository_named_after_it(push, hub):
    [done] = push()
    assert (done.repo, done.visibility) == ("someone/mountains-base", "private")
    assert set(hub.files["someone/mountains-base"]) == FILES | {".gitattributes"}
    [table] = [e for e in push.told if isinstance(e, Table) and e.columns[0] == "hub"]
    assert table.rows[0][:3] == ("huggingface", "someone/mountains-base", "private")
    config = json.loads(hub.files["someone/mountains-base"]["config.json"])
    assert config["model_type"] == "qwen2"


def test_a_second_push_sends_nothing_and_asks_nothing(push, hub):
    push()
    hub.writes.clear()
    [done] = push(yes=False)
    assert hub.writes == [] and done.files == 0
    assert any("already there, nothing to send" in text for text in texts(push, Note))


@pytest.mark.parametrize(
    ("recipe", "flag", "name"),
    [
        ("", "hills", "someone/hills"),
        ("", "group/hills", "group/hills"),
        ("push: {repo: rocks}", None, "someone/rocks"),
        ("push: {repo: group/rocks}", None, "group/rocks"),
        ("push: {repo: group/rocks}", "hills", "someone/hills"),
    ],
)
def test_the_name_is_the_flags_then_the_recipes(push, hub, runs, recipe, flag, name):
    with (runs / "mountains" / "recipe.yaml").open("a") as file:
        file.write(recipe)
    assert push(repo=flag)[0].repo == name


def test_the_recipe_says_hub_and_visibility(push, hub, runs):
    with (runs / "mountains" / "recipe.yaml").open("a") as file:
        file.write("push: {hub: huggingface, public: true, license: apache-2.0}")
    [done] = push(hub=None)
    assert (done.hub, done.visibility) == ("huggingface", "public")
    assert b"license: apache-2.0" in hub.files[done.repo]["README.md"]


@pytest.mark.parametrize(
    ("target", "choices", "told"),
    [
        (None, {"hub": None}, "--hub: say modelscope, huggingface or both"),
        (None, {"repo": "a/b/c"}, "--repo: 'a/b/c' is no name"),
        (None, {"repo": "../x"}, "--repo: '../x' is no name"),
        ("owner/name", {}, "owner/name: is on a hub already"),
        ("nosuch", {}, "nosuch: no such run"),
        ("native", {"with_training_state": True}, "native: lies in no run"),
        (None, {"with_training_state": True}, "no whole checkpoint"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_asked_of_the_hub(push, hub, runs, target, choices, told):
    shutil.copytree(runs / "mountains" / "export" / "hf", runs.parent / "native")
    with pytest.raises(BuddyError, match=told) as error:
        push(target, **choices)
    assert len(error.value.lines) == 1 and hub.writes == []


def test_the_first_push_is_asked_and_no_means_no(push, hub):
    asked = []

    def no(question):
        asked.append(question)
        return False

    with pytest.raises(BuddyError, match="not pushed"):
        push(ask=no)
    assert hub.writes == []
    assert asked[0].startswith("huggingface: someone/mountains-base: a new private repository. Publish 6 files")
    push(ask=lambda question: True)
    push(ask=no)  # it is ours now: nobody is asked
    assert len(asked) == 1


def test_where_nobody_can_be_asked_the_way_is_told(push, hub):
    with pytest.raises(BuddyError, match=r"a new private repository: nobody can be asked here; --yes agrees"):
        push(yes=False)
    assert hub.writes == []


def test_yes_does_not_reach_a_repository_that_holds_something_else(push, hub):
    hub.files["someone/mountains-base"] = {"config.json": b"{}", "model.safetensors": b"dear", "README.md": b"# Mine"}
    hub.private["someone/mountains-base"] = False
    before = dict(hub.files["someone/mountains-base"])
    with pytest.raises(BuddyError, match=r"holds something else.*push there from a terminal"):
        push()
    assert hub.files["someone/mountains-base"] == before
    with pytest.raises(BuddyError, match="not pushed"):
        push(ask=lambda question: "replaces or removes README.md, config.json, model.safetensors" not in question)
    push(ask=lambda question: True)
    assert hub.files["someone/mountains-base"]["model.safetensors"] != b"dear"


def test_a_dry_run_lists_everything_and_writes_nothing_with_or_without_a_login(push, hub):
    hub.visibility = hub.listing = None  # not even these are asked
    assert push(dry_run=True) == []
    hub.user = None
    assert push(dry_run=True, yes=False) == []
    assert hub.writes == []
    [table] = [e for e in push.told if isinstance(e, Table)]
    assert table.title == "huggingface: <login>/mountains-base"
    assert {row[0] for row in table.rows} == FILES | {"6 files"}
    [card] = [e for e in push.told if isinstance(e, Text)]
    assert card.title == "README.md" and card.text.startswith("---\n") and "<login>/mountains-base" in card.text


def test_both_hubs_get_it_and_the_fault_of_one_keeps_not_the_other(push, hubs):
    assert [done.hub for done in push(hub="both")] == ["modelscope", "huggingface"]
    assert set(hubs["modelscope"].files["someone/mountains-base"]) >= FILES
    hubs["modelscope"].user = None
    with pytest.raises(BuddyError, match=r"^modelscope: no token$"):
        push(hub="both", repo="again")
    assert set(hubs["huggingface"].files["someone/again"]) >= FILES
    hubs["modelscope"].user, hubs["modelscope"].hollow = "other", True
    with pytest.raises(BuddyError, match=r"modelscope: other/third: .* not there as sent") as error:
        push(hub="both", repo="third")
    assert error.value.exit_code == 1 and set(hubs["huggingface"].files["someone/third"]) >= FILES
    assert "huggingface" not in str(error.value)
    hubs["huggingface"].user = hubs["modelscope"].user = None
    with pytest.raises(BuddyError) as error:
        push(hub="both")
    assert error.value.lines == ("modelscope: no token", "huggingface: no token")


def test_a_hub_that_cannot_even_be_opened_keeps_not_the_other(push, hubs, monkeypatch):
    def opened(hub, settings):
        if hub == "modelscope":
            raise BuddyError("modelscope: a proxy that its client cannot use")
        return hubs[hub]

    monkeypatch.setattr(stage, "open_remote", opened)
    assert push(hub="both", dry_run=True) == []
    with pytest.raises(BuddyError, match="a proxy that its client cannot use"):
        push(hub="both")
    assert set(hubs["huggingface"].files["someone/mountains-base"]) >= FILES


def test_a_card_names_the_repository_of_each_hub(push, hubs):
    hubs["modelscope"].user = "other"
    push(hub="both")
    card = hubs["huggingface"].files["someone/mountains-base"]["README.md"].decode()
    assert "other/mountains-base" in card and "someone/mountains-base" in card


def test_ctrl_c_ends_all(push, hubs):
    def stop():
        raise KeyboardInterrupt

    hubs["modelscope"].before_commit = stop
    with pytest.raises(Stopped):
        push(hub="both")
    assert hubs["huggingface"].writes == []


@pytest.fixture
def native(runs):
    """A folder of transformers' own, with what lies beside a model in real life."""
    folder = runs.parent / "native"
    shutil.copytree(runs / "mountains" / "export" / "hf", folder)
    token = PLANTED["a Hugging Face token"]
    for name in (".env", "train.log", "recipe.yaml", "notes.md", "optimizer.pt"):
        (folder / name).write_text(f"HF_TOKEN={token}\n")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_text(token)
    return folder


def test_a_folder_goes_as_it_lies_there_and_what_is_not_on_the_list_stays(push, hub, native):
    [done] = push("native")
    assert done.repo == "someone/native-base" and set(hub.files[done.repo]) == FILES | {".gitattributes"}
    whole = b"".join(hub.files[done.repo].values())
    assert PLANTED["a Hugging Face token"].encode() not in whole
    [stays] = [text for text in texts(push, Note) if text.startswith("stays here")]
    assert stays == "stays here: .env, checkpoint-10/, notes.md, optimizer.pt, recipe.yaml, train.log"
    assert hub.files[done.repo]["model.safetensors"] == (native / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("planted", [PLANTED["a GitHub token"], "/home/someone/models", "an-actual-token-of-here"])
def test_a_secret_in_a_file_that_would_go_stops_all(push, hub, native, monkeypatch, name, planted):
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "an-actual-token-of-here")
    told = json.loads((native / name).read_text())
    (native / name).write_text(json.dumps(told | {"note": planted}))
    with pytest.raises(BuddyError, match=f"^{name}: a .*: nothing was sent") as error:
        push("native")
    assert planted not in str(error.value) and hub.writes == []


def test_no_byte_that_is_sent_tells_of_this_machine(push, hub, runs, tmp_path):
    push()
    for name, data in hub.files["someone/mountains-base"].items():
        assert str(tmp_path).encode() not in data, name


@pytest.mark.parametrize("damage", ["missing", "nan", "cut", "remote code"])
def test_a_native_folder_that_does_not_load_is_not_pushed(push, hub, native, damage):
    import torch
    from safetensors.torch import load_file, save_file

    file = native / "model.safetensors"
    state = load_file(file)
    first = min(state)
    if damage == "missing":
        save_file({k: v for k, v in state.items() if k != first}, file, {"format": "pt"})
    elif damage == "nan":
        save_file(state | {first: torch.full_like(state[first], float("nan"))}, file, {"format": "pt"})
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        config = json.loads((native / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}}
        (native / "config.json").write_text(json.dumps(config))
        (native / "mine.py").write_text("open('ran', 'w')")
    with pytest.raises(BuddyError):
        push("native")
    assert hub.writes == [] and not (native / "ran").exists()


def test_scores_go_only_where_they_are_of_these_weights_and_without_places(push, hub, runs):
    folder = runs / "mountains" / "eval" / "pretrain"
    folder.mkdir(parents=True)
    ours = {"model": "mountains/pretrain", "weights": hash_weights(runs / "mountains/pretrain/model"), "scores": []}
    ours["facts"] = {"settings": [], "data": [["ceval", "bench/ceval.zip"]], "versions": []}
    results = {"results": {"demo": {"acc,none": 0.5}}, "configs": {"demo": {"path": str(folder)}}, "buddygpt": ours}
    (folder / "results.json").write_text(json.dumps(results))
    push()
    there = json.loads(hub.files["someone/mountains-base"]["eval/results.json"])
    assert there["results"] == results["results"] and "configs" not in there
    assert there["buddygpt"].keys() == {"model", "weights", "scores"}
    (folder / "results.json").write_text(json.dumps(results | {"buddygpt": ours | {"weights": "0" * 32}}))
    push()
    assert "eval/results.json" not in hub.files["someone/mountains-base"]
    assert any("eval/results.json" in text for text in texts(push, Caution))


def test_a_recipe_with_a_token_is_refused_by_its_line(push, hub, runs):
    with (runs / "mountains" / "recipe.yaml").open("a") as file:
        file.write(f"push: {{repo: {PLANTED['a Hugging Face token']}}}\n")
    with pytest.raises(BuddyError, match=r"recipe.yaml:13: push.repo: looks like a secret") as error:
        push()
    assert PLANTED["a Hugging Face token"] not in str(error.value)


def test_training_state_goes_on_request_only(push, hub, runs):
    import torch
    from safetensors.torch import save_file

    for step in (10, 20):
        folder = runs / "mountains" / "pretrain" / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file({"w": torch.full((1,), float(step))}, folder / "model.safetensors")
        torch.save({"state": {0: {"step": torch.tensor(1.0)}}}, folder / "optimizer.pt")
        (folder / "training_args.bin").write_bytes(b"\x80\x02.")
        (folder / "complete.json").write_text("{}")
    push()
    assert not any("training" in name for name in hub.files["someone/mountains-base"])
    push(with_training_state=True)
    training = {name for name in hub.files["someone/mountains-base"] if name.startswith("training/")}
    assert training == {"training/model.safetensors", "training/state.safetensors", "training/state.json"}
    push()
    assert training <= set(hub.files["someone/mountains-base"])  # it stays until other is sent
