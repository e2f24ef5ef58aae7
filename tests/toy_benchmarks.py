"""Benchmarks of a few rows in lm-eval's own form, and models of a few thousand weights that can be asked them.

`trees` is a group of three subjects in CMMLU's form; `sayings` wants a written answer; `drawn` draws its examples at
random, and these differ much in length; `even` is read in two ways.
"""

import json
import shutil
from pathlib import Path

import torch

from buddygpt.data.demo import paragraphs
from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.data.tokenizer.chat import make_chat_tokenizer
from buddygpt.evaluation import catalog
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM

SUBJECTS = {"oak": 9, "pine": 9, "willow": 12}
"""Questions of each."""
EXAMPLES = 5
LETTERS = """
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
output_type: multiple_choice
doc_to_text: "{{Question.strip()}}\\nA. {{A}}\\nB. {{B}}\\nC. {{C}}\\nD. {{D}}\\n答案："
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{['A', 'B', 'C', 'D'].index(Answer)}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
GROUP = """
group: trees
task: [trees_oak, trees_pine, trees_willow]
aggregate_metric_list: [{metric: acc, weight_by_size: true}, {metric: acc_norm, weight_by_size: true}]
metadata: {version: 1.0}
"""
TREES = """
name: trees
about: questions with four choices on three trees
kind: choice
aliases: [wood]
harness: [{folder: FOLDER, task: trees}]
shots: 3
metric: acc,none
chance: 0.25
answer_texts:
  doc_to_text: "{{Question.strip()}}\\n答案："
  doc_to_choice: "{{[A, B, C, D]}}"
  metric: acc_norm,none
data:
  splits: {test: {rows: 30}, dev: {rows: 15}}
  examples: dev
  local: [trees]
  files: ["{split}/{subject}.csv"]
  choice: {question: Question, answer: Answer, form: letters}
  places: [{huggingface: someone/trees}]
  size: 3k
  licence: null
  subjects: [oak, pine, willow]
"""
SAYINGS = """
name: sayings
about: how a saying goes on
kind: answer
config:
  output_type: generate_until
  test_split: test
  doc_to_text: "{{begins}}"
  doc_to_target: "{{ends}}"
  generation_kwargs: {until: ["\\n"], do_sample: false}
  metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
  metadata: {version: 1.0}
fixed_shots: true
metric: exact_match,none
max_new_tokens: 6
data:
  splits: {test: {rows: 4}}
  local: [sayings.jsonl]
  files: [sayings.jsonl]
  columns: {begins: {}, ends: {}}
  places: [{huggingface: someone/sayings}]
  licence: null
"""
DRAWN = """
name: drawn
about: questions whose examples are drawn
kind: choice
config:
  output_type: multiple_choice
  test_split: test
  fewshot_split: train
  doc_to_text: "{{asked}}"
  doc_to_choice: ["对", "错"]
  doc_to_target: "{{right}}"
  target_delimiter: ""
  metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
  metadata: {version: 1.0}
shots: 2
metric: acc,none
chance: 0.5
data:
  splits: {test: {rows: 8}, train: {rows: 12}}
  examples: train
  local: ["drawn_{split}.jsonl"]
  files: ["drawn_{split}.jsonl"]
  columns: {asked: {}, right: {type: number}}
  places: [{huggingface: someone/drawn}]
  licence: null
"""
EVEN = """
name: even
about: whether a number is even
kind: choice
harness: [{folder: FOLDER, task: even_words}, {folder: FOLDER, task: even_digits}]
metric: acc,none
chance: 0.5
data:
  splits: {test: {rows: 8}}
  local: ["drawn_{split}.jsonl"]
  files: ["drawn_{split}.jsonl"]
  columns: {asked: {}, right: {type: number}}
  places: [{huggingface: someone/drawn}]
  licence: null
"""
READING = """
dataset_path: no/such
test_split: test
output_type: multiple_choice
doc_to_text: "{{asked}}"
doc_to_target: "{{right}}"
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""


def write_benchmarks(root: Path) -> None:
    """`root/tasks` with these beside the shipped ones, `root/harness` with lm-eval's files, `root/data` with rows."""
    shutil.copytree(catalog.FOLDER, root / "tasks")
    for name, text in (("trees", TREES), ("sayings", SAYINGS), ("drawn", DRAWN), ("even", EVEN)):
        (root / "tasks" / f"{name}.yaml").write_text(text.replace("FOLDER", str(root / "harness")), "utf-8")
    (root / "harness").mkdir()
    (root / "harness" / "_letters").write_text(LETTERS, "utf-8")
    (root / "harness" / "_trees.yaml").write_text(GROUP, "utf-8")
    for subject in SUBJECTS:
        keys = {"include": "_letters", "task": f"trees_{subject}", "dataset_name": subject}
        keys |= {"dataset_path": "no/such", "description": f"以下是关于{subject}的单项选择题。\n\n"}
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items()]
        (root / "harness" / f"{subject}.yaml").write_text("".join(lines), "utf-8")
    for task, choices in (("even_words", ["对", "错"]), ("even_digits", ["1", "0"])):
        text = f"task: {task}\ndoc_to_choice: {json.dumps(choices, ensure_ascii=False)}\n{READING}"
        (root / "harness" / f"{task}.yaml").write_text(text, "utf-8")
    write_rows(root / "data")


def write_rows(folder: Path) -> None:
    """Rows of all. A question of `willow` is much longer than one of the others."""
    for split in ("test", "dev"):
        (folder / "trees" / split).mkdir(parents=True)
        for subject, count in SUBJECTS.items():
            rows = [",Question,A,B,C,D,Answer"]
            for number in range(count if split == "test" else EXAMPLES):
                length = (number * 7) % 5 + (40 if subject == "willow" else 3)
                question = f"{subject}的第{number}棵{'高' * length}？"
                answers = [f"{number + k}米{'远' * k}" for k in range(4)]
                rows.append(",".join([str(number), question, *answers, "ABCD"[(number * 3) % 4]]))
            (folder / "trees" / split / f"{subject}.csv").write_text("\n".join(rows) + "\n", "utf-8")
    sayings = [{"begins": "春眠不觉", "ends": "晓"}, {"begins": "处处闻啼", "ends": "鸟"}]
    sayings += [{"begins": "夜来风雨", "ends": "声"}, {"begins": "花落知多", "ends": "少"}]
    write_lines(folder / "sayings.jsonl", sayings)
    write_lines(folder / "drawn_test.jsonl", [{"asked": f"{n}是双数？", "right": n % 2} for n in range(8)])
    examples = [{"asked": f"{n}是双数？" + "想" * (1 if n % 4 == 0 else 120), "right": n % 2} for n in range(12)]
    write_lines(folder / "drawn_train.jsonl", examples)


def write_lines(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def use_benchmarks(root: Path) -> None:
    """Let this process know the benchmarks of `write_benchmarks`."""
    catalog.FOLDER = root / "tasks"
    catalog._files.cache_clear()
    catalog.load_benchmark.cache_clear()


def write_models(root: Path) -> None:
    """`base`, `other` with other weights, `narrow` with a context of 200 tokens, and `chat` with a template."""
    base = train_tokenizer(list(paragraphs(5, 30_000)), 600)
    chat = make_chat_tokenizer(base)
    for number, (name, tokenizer, context) in enumerate(
        [("base", base, 768), ("other", base, 768), ("narrow", base, 200), ("chat", chat, 768)]
    ):
        torch.manual_seed(number)
        config = BuddyGPTConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=48, max_position_embeddings=context, initializer_range=0.3,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        BuddyGPTForCausalLM(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)


RECIPE = """
schema: 1
name: {name}
model:
  vocab_size: 600
  hidden_size: 32
  num_hidden_layers: 2
  max_position_embeddings: 768
  attention: {{kind: gqa, num_attention_heads: 2, num_key_value_heads: 1}}
  mlp: {{kind: dense, intermediate_size: 48}}
tokenizer: {{train: 600}}
data: {{sources: [{{kind: demo, seed: {seed}}}], validation: 0.1}}
"""


def write_run(runs: Path, name: str, model: Path, chapter: str = "pretrain", seed: int = 0) -> Path:
    """A run whose chapter has finished with a copy of a model; gives that model's folder."""
    folder = runs / name / chapter / "model"
    shutil.copytree(model, folder)
    (runs / name / "recipe.yaml").write_text(RECIPE.format(name=name, seed=seed), "utf-8")
    (folder.parent / "done.json").write_text("{}")
    return folder
