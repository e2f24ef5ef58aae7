"""Preparing text: speed beside raw tokenizers, datasets and datatrove; memory by size of the input; kills.

The corpus is synthetic: sentences of real documents (of the demo generator where those are absent) drawn at random into
documents of about 2 kB; every 20th is a copy of an earlier one, every 20th nearly one, every 50th repeats itself.
datatrove's pipeline needs spacy for Chinese, and xxhash before 4.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import measure_in_turn, table

CORPORA = Path(__file__).parents[2] / "shared" / "data" / "corpus"
ROUNDS = 3
SPEED_MB, WHOLE_MB, SMALL_MB, LARGE_MB, KILL_MB = 100, 20, 200, 2000, 24
FILE_MB = 5
KILLS = 20
SAMPLE_SECONDS = 0.1


def run() -> str:
    """Four tables."""
    with tempfile.TemporaryDirectory(prefix="buddy-data-") as scratch:
        folder = Path(scratch)
        return "\n\n".join((speed(folder), memory(folder), kills(folder)))


def make_corpus(folder: Path, megabytes: int, seed: int = 0) -> Path:
    """Synthetic .jsonl files of about `FILE_MB` each."""
    dice = random.Random(seed)
    sentences = _sentences()
    folder.mkdir(parents=True)
    earlier: list[str] = []
    written, number, file = 0, 0, None
    while written < megabytes * 1_000_000:
        if file is None or file.tell() > FILE_MB * 1_000_000:
            file = (folder / f"{number:04d}.jsonl").open("wb")
            number += 1
        text = "".join(dice.choices(sentences, k=dice.randint(8, 40)))
        kind = dice.random()
        if earlier and kind < 0.1:
            text = dice.choice(earlier)
            if kind < 0.05:
                text = text[: len(text) // 2] + "另" + text[len(text) // 2 :]
        elif kind < 0.12:
            text = sentences[dice.randrange(len(sentences))] * 30
        else:
            earlier = [*earlier[-999:], text]
        file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
        written += len(text.encode())
    return folder


def _sentences() -> list[str]:
    texts: list[str] = []
    for path in sorted(CORPORA.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    if not texts:
        from buddygpt.data import demo

        texts = list(demo.paragraphs(0, 1_000_000))
    pieces = (piece for text in texts for piece in text.replace("\n", "。").split("。"))
    return [piece.strip() + "。" for piece in pieces if 8 < len(piece) < 200]


def write_recipe(path: Path, corpus: Path, workers: int, more: str = "") -> Path:
    """A recipe that prepares the corpus with the Qwen3 tokenizer."""
    path.write_text(
        f"extends: {Path(__file__).parents[1] / 'recipes' / '0.1b.yaml'}\nname: bench\n"
        f"data:\n  sources: [{{kind: files, name: bench, paths: ['{corpus}']}}]\n  workers: {workers}\n{more}",
        "utf-8",
    )
    return path


PLAIN, CLEAN = "  clean: null\n  near_duplicates: null\n", ""
"""The family's recipe cleans and removes near duplicates."""


def speed(folder: Path) -> str:
    """Tokenise + shard beside raw encoding and datasets.map; the whole way beside datatrove's stock pipeline."""
    corpus, small = make_corpus(folder / "speed", SPEED_MB), make_corpus(folder / "whole", WHOLE_MB)
    plain = write_recipe(folder / "plain.yaml", corpus, workers=2, more=PLAIN)
    whole = write_recipe(folder / "whole.yaml", small, workers=1, more=CLEAN)
    me = ["-m", "benchmarks.data"]
    two = measure_in_turn(
        {
            "raw": [*me, "raw", str(corpus)],
            "datasets": [*me, "datasets", str(corpus), str(folder / "arrow")],
            "ours": [*me, "ours", str(plain), str(folder / "runs")],
        },
        ROUNDS,
    )
    rows = []
    for peer, name in (
        ("raw", "tokenizers' encode_batch_fast, texts in memory, ids thrown away"),
        ("datasets", "datasets.map(batched=True, num_proc=2), writing Arrow"),
    ):
        rows.append(_row("tokenise + shard, 2 workers", name, two[peer], two["ours"]))
    one = measure_in_turn(
        {
            "datatrove": [*me, "datatrove", str(small), str(folder / "datatrove")],
            "ours": [*me, "whole", str(whole), str(folder / "runs")],
        },
        ROUNDS,
    )
    name = "datatrove: Gopher repetition + quality, MinHash, tokenizer"
    rows.append(_row("read + clean + dedup + tokenise, 1 worker", name, one["datatrove"], one["ours"]))
    head = (
        "work",
        "peer",
        "peer MB/s",
        "ours MB/s",
        "ours / peer (least - most of the pairs)",
        "documents left of both",
    )
    shutil.rmtree(corpus)
    return table(head, rows)


def _row(work: str, peer: str, theirs: list[dict], ours: list[dict]) -> tuple[str, ...]:
    rates = [[run["megabytes"] / run["seconds"] for run in runs] for runs in (theirs, ours)]
    ratios = [mine / other for other, mine in zip(*rates, strict=True)]
    spans = f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} - {max(ratios):.2f})"
    speeds = [f"{statistics.median(rate):.2f}" for rate in rates]
    return (work, peer, *speeds, spans, f"{theirs[-1]['documents']:,.0f}; {ours[-1]['documents']:,.0f}")


def memory(folder: Path) -> str:
    """Peak memory of all processes of `buddy data`, by size of the input."""
    rows, peaks = [], []
    for megabytes in (SMALL_MB, LARGE_MB):
        corpus = make_corpus(folder / f"{megabytes}", megabytes)
        recipe = write_recipe(folder / f"{megabytes}.yaml", corpus, workers=2, more=CLEAN)
        begun = time.perf_counter()
        process = _start(recipe, folder / "memory" / str(megabytes))
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(SAMPLE_SECONDS)
        assert process.returncode == 0
        peaks.append(peak)
        seconds = time.perf_counter() - begun
        rows.append((f"{megabytes:,} MB", f"{peak / 1e6:,.0f} MB", f"{megabytes / seconds:.2f} MB/s"))
        shutil.rmtree(corpus)
        shutil.rmtree(folder / "memory")
    rows.append((f"{LARGE_MB / SMALL_MB:.0f} x", f"{peaks[1] / peaks[0]:.2f} x", ""))
    return table(
        ("input", "peak of all processes (proportional set size)", "read + clean + dedup + tokenise, 2 workers"), rows
    )


def _start(recipe: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "buddygpt", "data", str(recipe), "--run", str(folder / "run")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _resident(pid: int) -> int:
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(process.memory_full_info().pss for process in family)
    except psutil.Error:
        return 0


def kills(folder: Path) -> str:
    """`buddy data` killed again and again at random moments: the shards are those of an unbroken run."""
    corpus = make_corpus(folder / "kills", KILL_MB)
    recipe = write_recipe(folder / "kills.yaml", corpus, workers=2, more=CLEAN)
    begun = time.perf_counter()
    assert _start(recipe, folder / "unbroken").wait() == 0
    seconds = time.perf_counter() - begun
    dice, left = random.Random(0), KILLS
    while left:
        process = _start(recipe, folder / "killed")
        try:
            process.wait(timeout=dice.uniform(0.2, 0.6 * seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            left -= 1
            continue
        assert process.returncode == 0
        shutil.rmtree(folder / "killed")  # it came to its end: start again
    assert _start(recipe, folder / "killed").wait() == 0
    whole, broken = (_contents(folder / name) for name in ("unbroken", "killed"))
    same = sum(whole[name] == broken.get(name) for name in whole)
    rows = [(KILLS, f"{len(whole)}", f"{same}", len(broken.keys() - whole.keys()))]
    return table(("kills at random moments", "files of the unbroken run", "byte-equal after them", "others"), rows)


def _contents(folder: Path) -> dict[str, bytes]:
    (prepared,) = (path for path in (folder / ".data").iterdir() if path.is_dir())
    files = [path for path in prepared.rglob("*") if path.is_file()]
    named = {path.relative_to(prepared).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in named.items() if not name.startswith("logs/")}


def _texts(corpus: Path) -> Iterator[str]:
    for path in sorted(corpus.glob("*.jsonl")):
        with path.open("rb") as lines:
            yield from (json.loads(line)["text"] for line in lines)


def _raw(corpus: str) -> dict[str, float]:
    from buddygpt.data.tokenizer import load_tokenizer

    texts = list(_texts(Path(corpus)))
    backend = load_tokenizer("qwen3").backend_tokenizer
    size = sum(len(text.encode()) for text in texts)
    begun = time.perf_counter()
    for start in range(0, len(texts), 1000):
        backend.encode_batch_fast(texts[start : start + 1000], add_special_tokens=False)
    return {"seconds": time.perf_counter() - begun, "megabytes": size / 1e6, "documents": len(texts)}


def _datasets(corpus: str, cache: str) -> dict[str, float]:
    import datasets

    from buddygpt.data.tokenizer import load_tokenizer

    shutil.rmtree(cache, ignore_errors=True)
    datasets.disable_progress_bars()
    files = sorted(map(str, Path(corpus).glob("*.jsonl")))
    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
    tokenizer = load_tokenizer("qwen3")
    size = sum(len(text.encode()) for text in rows["text"])
    begun = time.perf_counter()
    done = rows.map(
        lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]},
        batched=True,
        num_proc=2,
        remove_columns=["text"],
    )
    return {"seconds": time.perf_counter() - begun, "megabytes": size / 1e6, "documents": len(done)}


def _prepare(recipe: str, runs: str, task: str | None) -> dict[str, float]:
    from buddygpt.data.prepare import prepare
    from buddygpt.recipe.loader import load_recipe

    shutil.rmtree(runs, ignore_errors=True)
    moments: dict[str, list[float]] = {}

    def emit(event: object) -> None:
        moments.setdefault(getattr(event, "task", ""), []).append(time.perf_counter())

    begun = time.perf_counter()
    prepared = prepare(load_recipe(Path(recipe)), Path(runs), emit)
    ended = time.perf_counter()
    if task:
        begun, ended = moments[task][0], moments[task][-1]
    source = prepared.manifest["sources"]["bench"]
    size = sum(split["bytes"] for split in source["splits"].values()) if task else source["bytes_in"]
    return {"seconds": ended - begun, "megabytes": size / 1e6, "documents": source["documents_out"]}


def _datatrove(corpus: str, folder: str) -> dict[str, float]:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    from buddygpt.data.tokenizer import load_tokenizer

    shutil.rmtree(folder, ignore_errors=True)
    root = Path(folder)
    tokenizer = load_tokenizer("qwen3")
    tokenizer.save_pretrained(root / "tokenizer")
    config, tasks = MinhashConfig(), len(list(Path(corpus).iterdir()))
    size = sum(path.stat().st_size for path in Path(corpus).iterdir())
    stages = [
        (
            [
                JsonlReader(corpus),
                GopherRepetitionFilter(language="zh"),
                # Its measures of words are of English: they leave next to nothing of Chinese text.
                GopherQualityFilter(
                    language="zh", min_doc_words=None, min_avg_word_length=None, max_avg_word_length=None,
                    min_stop_words=None, max_non_alpha_words_ratio=None,
                ),
                JsonlWriter(str(root / "clean")),
            ],
            tasks,
        ),
        (
            [
                JsonlReader(str(root / "clean")),
                MinhashDedupSignature(str(root / "signatures"), config, language="zh"),
            ],
            tasks,
        ),
        ([MinhashDedupBuckets(str(root / "signatures"), str(root / "buckets"), config=config)], config.num_buckets),
        ([MinhashDedupCluster(str(root / "buckets"), str(root / "remove"), config=config)], 1),
        (
            [
                JsonlReader(str(root / "clean")),
                MinhashDedupFilter(str(root / "remove")),
                DocumentTokenizer(
                    str(root / "tokens"), tokenizer_name_or_path=str(root / "tokenizer" / "tokenizer.json"),
                    eos_token="<|endoftext|>", shuffle_documents=False,
                ),
            ],
            tasks,
        ),
    ]  # fmt: skip
    begun = time.perf_counter()
    for number, (steps, count) in enumerate(stages):
        LocalPipelineExecutor(steps, tasks=count, workers=1, logging_dir=str(root / f"logs{number}")).run()
    seconds = time.perf_counter() - begun
    documents = sum(path.stat().st_size // 8 for path in (root / "tokens").glob("*.ds.index"))
    return {"seconds": seconds, "megabytes": size / 1e6, "documents": documents}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name in ("whole", "datatrove"):
        os.environ["RAYON_NUM_THREADS"] = "1"  # one core each
    kinds = {"raw": _raw, "datasets": _datasets, "datatrove": _datatrove}
    if name in kinds:
        found = kinds[name](*arguments)
    else:
        found = _prepare(*arguments, "prepare: tokenise" if name == "ours" else None)
    print(json.dumps(found))
