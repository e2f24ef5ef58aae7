import importlib
from pathlib import Path

import numpy as np
import pytest

MODULES = sorted(file.stem for file in (Path(__file__).parents[1] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_a_measurement_follows_when_what_it_measures_is_renamed(name):
    importlib.import_module(f"benchmarks.{name}")


def test_a_trial_of_the_comparison_of_optimizers_gives_what_its_page_reads(tmp_path, monkeypatch):
    """From arrays alone, as on a machine without the corpus: every setting, then the page with both figures."""
    from benchmarks import optimizers, optimizers_page, trials
    from buddygpt.data.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["春眠不觉晓，处处闻啼鸟。" * 3], 270)
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = np.random.default_rng(0).integers(1, 256, 1000).astype(np.uint16)
    one = ids, np.arange(50, 1001, 50)
    splits = {f"{name}/{split}": one for name in ("a", optimizers.NEW) for split in ("train", "validation")}
    held_out = {optimizers.SAME: ["a/validation"], optimizers.NEW: [f"{optimizers.NEW}/validation"]}
    facts = trials.keep_arrays(tmp_path, splits, ["a"], held_out)
    bench = trials.Bench(tmp_path, optimizers.TOY | {"vocab_size": 320}, 16, 64, 4, 100)
    budget = 64 * trials.POINTS
    # The same few runs stand for all purposes: what is proved is that they can be made and drawn.
    made = {s.name: trials.run_trial(bench, trials.Trial("seed", s, 1e-2, 0, budget)) for s in optimizers.SETTINGS}
    for run in made.values():
        assert (run["error"], run["steps"], len(run["evaluations"])) == (None, trials.POINTS, trials.POINTS)
        assert np.isfinite([optimizers.final_bits(run, text) for text in held_out]).all()
    found = [run | {"purpose": purpose} for run in made.values() for purpose in ("time", "rate", "seed")]
    found.append(made[optimizers.CANDIDATE] | {"purpose": "budget", "tokens": budget // 2})
    assert optimizers.best_rate(found, optimizers.BASELINE) == 1e-2
    monkeypatch.setattr(optimizers_page, "RESULTS", tmp_path)
    text, where = optimizers_page.page(
        {"trials": found, "rates": [1e-2], "tokens": budget, "parameters": 1, "minutes": 1.0, "machine": "here",
         "bench": {"geometry": bench.geometry, "batch": 64, "sequence_length": 16, "precision": "bf16"}, "facts": facts}
    )  # fmt: skip
    assert where == "here" and all(f"| {name} |" in text for name in made)
    assert len(list(tmp_path.glob("*-optimizers-*.svg"))) == 2
