"""The catalog: every entry says what it must, and takes the files it means and no others."""

import re
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest

from buddygpt.data.catalog import Entry, as_hub, entries, find
from buddygpt.recipe.data import CatalogSource, DataSection, source_name
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.shipped import shipped_recipes

ASKED_FOR = {
    "pretrain": ("openbmb/Ultra-FineWeb YeungNLP/firefly-pretrain-dataset Mxode/Chinese-Instruct wikimedia/wikipedia"),
    "sft": (
        "Mxode/Chinese-Instruct-Lite BelleGroup/train_0.5M_CN BelleGroup/train_1M_CN BelleGroup/train_2M_CN "
        "BelleGroup/train_3.5M_CN YeungNLP/moss-003-sft-data shareAI/ShareGPT-Chinese-English-90k tatsu-lab/alpaca"
    ),
    "dpo": (
        "FuseAI/FuseChat-3.0-DPO-Data Hello-SimpleAI/HC3-Chinese YeungNLP/ultrafeedback_binarized "
        "HuggingFaceH4/ultrafeedback_binarized"
    ),
}
"""The data sets that the family's models are trained on; all else in the catalog is extra."""

EN_STYLE = "part-00000-f36f5a53-4a77-434b-b9bc-67ed69b93fe2-c000.snappy.parquet"
ZH_STYLE = "part-00000-c13afd3b-b5fb-4acd-97dc-e045a844c126-c000.snappy.parquet"
ZH_QA = "part-00000-100cee91-ea2e-4268-9b98-1403cd5d9d11-c000.snappy.parquet"
FILES: dict[str, tuple[list[str], list[str]]] = {
    "ultra-fineweb-zh": (
        ["data/ultrafineweb_zh/ultrafineweb-zh-part-001-of-256.parquet"],
        [
            "data/ultrafineweb_zh/ultrafineweb-zh-part-060-of-256.parquet",
            "data/ultrafineweb_zh/ultrafineweb-zh-part-256-of-256.parquet",
            "data/ultrafineweb_en/ultrafineweb-en-part-0001-of-2048.parquet",
            "data/ultrafineweb_en_v1_4/CC-MAIN-2024-10/_SUCCESS",
        ],
    ),
    "ultra-fineweb-en": (
        ["data/ultrafineweb_en/ultrafineweb-en-part-0001-of-2048.parquet"],
        [
            "data/ultrafineweb_en/ultrafineweb-en-part-0030-of-2048.parquet",
            "data/ultrafineweb_en/ultrafineweb-en-part-2048-of-2048.parquet",
            "data/ultrafineweb_zh/ultrafineweb-zh-part-001-of-256.parquet",
            "data/ultrafineweb_l1_en_hq/CC-MAIN-2024-10/part-0001.parquet",
        ],
    ),
    "firefly-pretrain": (
        [
            f"{name}.jsonl"
            for name in (
                "CNewSum_v2 COIG-PC-Lite chinese-poem classical_chinese csl_camera_readly falcon-refinedweb "
                "news2016zh_corpus prose thucnews translation2019zh webText2019zh wiki_zh wikipedia-cn-20230720"
            ).split()
        ],
        ["jinyong.jsonl", "data/jinyong.jsonl", "README.md"],
    ),
    "chinese-instruct": (["firefly/train.jsonl", "stem_zh/train.jsonl"], ["README.md", "train.jsonl"]),
    "wikipedia-zh": (
        ["20231101.zh/train-00000-of-00006.parquet"],
        ["20231101.zh-yue/train-00000-of-00001.parquet", "20231101.en/train-00000-of-00041.parquet"],
    ),
    "finewiki-zh": (["data/zhwiki/000_00000.parquet"], ["data/enwiki/000_00000.parquet"]),
    "wikipedia-cn-filtered": (["wikipedia-cn-20230720-filtered.json"], ["README.md", "dataset_infos.json"]),
    "fineweb-edu-chinese": (["4_5/00001.parquet"], ["3_4/00001.parquet", "2_3/00001.parquet"]),
    "ultra-fineweb-l3-zh": (
        [f"data/ultrafineweb_zh_l3/multi_style/{ZH_STYLE}", f"data/ultrafineweb_zh_l3/qa/{ZH_QA}"],
        [
            f"data/ultrafineweb_en_l3/multi_style/{EN_STYLE}",
            f"data/ultrafineweb_zh_l3/qa/{ZH_QA.replace('00000-', '00010-')}",
        ],
    ),
    "skypile": (
        ["data/2023-06_zh_head_0000.jsonl", "data/2023-14_zh_head_0001.jsonl"],
        ["data/2020-40_zh_head_0000.jsonl", "data/2023-14_zh_middle_0000.jsonl"],
    ),
    "cci3-hq": (["data/part_000000.jsonl"], ["data/part_000010.jsonl", "data/part_000099.jsonl"]),
    "chinese-cosmopedia": (["data/00000.parquet"], ["data/00010.parquet", "data/00061.parquet"]),
    "chinese-instruct-lite": (
        ["general/train-00.parquet"],
        ["code/train-00.parquet", "code(reasoning)/train-00.parquet", "math(reasoning)/train-00.parquet"],
    ),
    "belle-0.5m": (["Belle_open_source_0.5M.json"], ["README.md"]),
    "belle-1m": (["Belle_open_source_1M.json"], ["README.md"]),
    "belle-2m": (["train_2M_CN.json"], ["README.md"]),
    "belle-3.5m": (["train_3.5M_CN.json"], ["README.md"]),
    "moss-003-sft": (["moss-003-sft-data.jsonl"], ["README.md"]),
    "sharegpt-90k": (
        [
            f"sharegpt_jsonl/{name}.jsonl"
            for name in (
                "common_en_70k common_zh_70k computer_en_26k(fixed) computer_zh_26k(fixed) unknow_zh_38k"
            ).split()
        ],
        [
            "sharegpt_jsonl/computer_zh_26k.jsonl",
            "sharegpt_jsonl/computer_cn_26k_continue.jsonl",
            "sharegpt_jsonl/computer_en_26k_continue.jsonl",
            "sharegpt_jsonl/unknow_zh_38k_continue.jsonl",
            "sharegpt_90k_raw_dataset.zip",
        ],
    ),
    "alpaca": (["data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"], ["README.md"]),
    "alpaca-cleaned": (["alpaca_data_cleaned.json"], ["README.md"]),
    "alpaca-gpt4-zh": (["alpaca_gpt4_data_zh.json"], ["README.md"]),
    "smoltalk-chinese": (
        ["advice-seeking.parquet", "math23k_zh_fixed.parquet"],
        ["old/math.parquet", "README.md"],
    ),
    "r1-distill-110k-sft": (["distill_r1_110k_sft.jsonl"], ["README.md"]),
    "infinity-instruct": (["0625/train-00000-of-00007.parquet"], ["7M/train-00000-of-00015.parquet"]),
    "i-wonder-why": (["general/train.parquet"], ["preference/train.parquet", "reasoning/train.parquet"]),
    "tulu-3-sft": (["data/train-00000-of-00006.parquet"], ["README.md"]),
    "smoltalk2": (
        ["SFT/smoltalk_smollm3_smol_magpie_ultra_no_think-00000-of-00006.parquet"],
        [
            "SFT/OpenThoughts3_1.2M_think-00000-of-00110.parquet",
            "SFT/smoltalk_everyday_convs_reasoning_Qwen3_32B_think-00000-of-00001.parquet",
            "Mid/OpenThoughts3_1.2M-00000-of-00110.parquet",
        ],
    ),
    "fusechat-3-dpo": (["train.json"], ["README.md"]),
    "hc3-chinese": (["all.jsonl"], ["HC3-Chinese.py", "baike.jsonl", "finance.jsonl"]),
    "ultrafeedback-binarized": (
        ["data/train_prefs-00000-of-00001.parquet"],
        [
            "data/test_prefs-00000-of-00001.parquet",
            "data/train_sft-00000-of-00001.parquet",
            "data/train_gen-00000-of-00001.parquet",
        ],
    ),
    "ultrafeedback-binarized-yeungnlp": (["ultra-feedback-train.jsonl"], ["ultra-feedback-test.jsonl"]),
    "ultrafeedback-chinese": (
        ["ultrafeedback_zh_binarized_lowest.parquet"],
        ["ultrafeedback_zh.parquet", "ultrafeedback_zh_binarized_random.parquet"],
    ),
    "coig-p": (["data/train-00000-of-00007.parquet"], ["README.md"]),
    "dpo-en-zh-20k": (["dpo_zh.json"], ["dpo_en.json"]),
    "i-wonder-why-preference": (["preference/train.parquet"], ["general/train.parquet"]),
}
"""Names of files as the hubs have them: those an entry takes, and those it leaves."""

NAMES = [entry.name for entry in entries()]


def takes(entry: Entry, file: str) -> bool:
    """As the hub's lister decides."""
    return any(fnmatchcase(file, g) for g in entry.files) and not any(fnmatchcase(file, g) for g in entry.exclude)


def test_every_data_set_that_the_family_is_trained_on_has_an_entry_of_its_kind():
    for kind, ids in ASKED_FOR.items():
        assert set(ids.split()) <= {entry.huggingface for entry in entries(kind)}
    assert {"ultra-fineweb-zh", "ultra-fineweb-en"} <= set(NAMES)


def test_names_are_unique_and_each_is_found_again():
    assert len(NAMES) == len(set(NAMES))
    assert all(find(name).name == name for name in NAMES)


@pytest.mark.parametrize("entry", entries(), ids=NAMES)
def test_an_entry_says_what_a_reader_needs(entry):
    for id in (entry.huggingface, entry.modelscope):
        assert id is None or re.fullmatch(r"[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+", id), id
    assert entry.licence is None or len(entry.licence) <= 26  # a column of the table
    assert set(entry.unsure) <= set(Entry.model_fields) - {"unsure", "name", "kind"}
    assert all(getattr(entry, field) for field in entry.unsure)  # what is left out cannot be unsure
    assert all(text == text.strip() and not text.endswith(".") for text in (entry.about, *entry.warnings))
    for globs in (entry.files, *(part.files for part in entry.parts.values())):
        assert all(glob not in ("*", "**", "*/*") and "[" not in glob.replace("[0-", "") for glob in globs)
    if entry.licence and "nc" in entry.licence.split("-"):
        assert any("non-commercial" in warning for warning in entry.warnings)


@pytest.mark.parametrize("entry", entries(), ids=NAMES)
def test_an_entry_takes_its_files_and_leaves_the_others_of_its_repository(entry):
    taken, left = FILES[entry.name]
    assert [file for file in taken if not takes(entry, file)] == []
    assert [file for file in left if takes(entry, file)] == []


def test_parts_cover_distinct_files_of_their_set():
    lite = find("chinese-instruct-lite")
    files = [f"{part}/train-00.parquet" for part in lite.parts]
    for part in lite.parts:
        chosen = find(f"chinese-instruct-lite/{part}")
        assert [file for file in files if takes(chosen, file)] == [f"{part}/train-00.parquet"]
    whole = find("chinese-instruct")
    assert sum(part.rows or 0 for part in whole.parts.values()) == whole.rows == 4_845_389
    assert all(takes(whole, find(f"chinese-instruct/{part}").files[0]) for part in whole.parts)


def test_a_part_does_not_claim_the_size_of_the_whole():
    for entry in entries():
        for part in entry.parts:
            chosen = find(f"{entry.name}/{part}")
            assert chosen.size is chosen.tokens is None
            assert chosen.rows == entry.parts[part].rows


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ultra-finweb-zh", "did you mean 'ultra-fineweb-zh'"),
        ("chinese-instruct/stem", "did you mean 'stem_zh'"),
        ("alpaca/en", "its parts: none"),
        ("zzz", "buddy data list"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(name, told):
    with pytest.raises(BuddyError, match=re.escape(told)):
        find(name)


def test_a_recipe_goes_before_the_entry():
    entry = find("ultra-fineweb-zh")
    plain = CatalogSource(kind="catalog", dataset=entry.name)
    hub = as_hub(entry, plain)
    assert (hub.id, hub.modelscope, hub.files) == (entry.huggingface, entry.modelscope, entry.files)
    assert (hub.map, hub.min_score, hub.size) == (None, 0.85, 75_000_000_000)
    named = find("wikipedia-cn-filtered")
    assert as_hub(named, CatalogSource(kind="catalog", dataset=named.name)).map == {"text": "completion"}
    own = CatalogSource(
        kind="catalog", dataset=entry.name, name="web", weight=3, validation=0, render="chat", stream=True,
        files=["a.parquet"], map={"text": "body"}, min_score=0,
    )  # fmt: skip
    hub = as_hub(entry, own)
    assert hub.size is None  # that of other files
    assert (hub.files, hub.map, hub.min_score) == (["a.parquet"], {"text": "body"}, 0)
    assert (hub.weight, hub.validation, hub.render, hub.stream) == (3, 0, "chat", True)
    assert source_name(hub) == source_name(own) == "web"
    assert source_name(as_hub(entry, plain)) == source_name(plain)


def test_what_is_left_out_for_copyright_stays_out_whatever_files_a_recipe_names():
    source = CatalogSource(kind="catalog", dataset="firefly-pretrain", files=["*.jsonl"])
    assert as_hub(find("firefly-pretrain"), source).exclude == ["*jinyong*"]


def test_every_field_that_both_kinds_of_source_have_is_carried_over():
    """A field that is added to the schema is either carried or told here why not."""
    from buddygpt.recipe.data import HubSource

    shared = set(CatalogSource.model_fields) & set(HubSource.model_fields) - {"kind"}
    given = {
        "name": "n", "weight": 7.0, "validation": 0.5, "map": {"text": "x"}, "render": "chat", "min_score": 0.1,
        "stream": True, "files": ["f"],
    }  # fmt: skip
    assert set(given) == shared
    hub = as_hub(find("skypile"), CatalogSource(kind="catalog", dataset="skypile", **given))
    assert {field: getattr(hub, field) for field in shared} == given


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name != "tiny"])
def test_shipped_recipes_name_data_sets_that_exist(name):
    data = load_recipe(shipped_recipes()[name]).data
    assert isinstance(data, DataSection)
    sources = [source for source in data.sources if isinstance(source, CatalogSource)]
    assert sources and all(find(source.dataset).kind == "pretrain" for source in sources)


def test_the_catalog_loads_without_anything_heavy():
    code = (
        "import sys; from buddygpt.data.catalog import entries; assert len(entries()) > 30\n"
        "bad = {'torch', 'transformers', 'numpy', 'pyarrow', 'huggingface_hub'} & set(sys.modules)\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
