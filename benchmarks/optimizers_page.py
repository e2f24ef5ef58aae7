"""The page of the comparison of optimizers, drawn from its runs' JSON."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.optimizers import BASELINE, CANDIDATE, CHOOSING, NEW, REPORTING, SAME, best_rate, final_bits
from benchmarks.svg import stand_alone
from benchmarks.table import table
from buddygpt.report.curves import Series
from buddygpt.report.figures import WIDE, Figure, Key, level
from buddygpt.report.plots import Curve, Scale, draw

RESULTS = Path(__file__).parent / "results"
Runs = Sequence[dict[str, Any]]


def page(found: Mapping[str, Any]) -> tuple[str, str]:
    """Writes both figures; gives the page and what its figures were measured on.

    Args:
        found: what `benchmarks.optimizers` wrote.
    """
    trials, names = found["trials"], list(dict.fromkeys(t["setting"] for t in found["trials"]))
    parts = [_what(found), "## Rates", _rates(trials, names, found["rates"]), "## Seeds", _seeds(trials, names)]
    curves = [_curves(trials, names, text) for text in (SAME, NEW)]
    parts += ["## On the way", _keep("curves", curves)]
    parts += ["## Tokens to reach the baseline", _reach(trials, found["tokens"])]
    parts += [_keep("reach", [_budgets(trials, text) for text in (SAME, NEW)])]
    return "\n\n".join(parts), found["machine"]


def seed_runs(trials: Runs, name: str) -> list[dict[str, Any]]:
    """A setting's runs that report, by seed."""
    mine = [t for t in trials if t["purpose"] == "seed" and t["setting"] == name]
    return sorted(mine, key=lambda t: t["seed"])


def smallest_budgets(trials: Runs, tokens: int, text: str) -> dict[int, float | None]:
    """By seed, the smallest share of the tokens with which the candidate ends as low as the baseline does with all.

    None where not even all of them suffice.
    """
    found: dict[int, float | None] = {}
    budgets = [t for t in trials if t["purpose"] == "budget"] + seed_runs(trials, CANDIDATE)
    for base in seed_runs(trials, BASELINE):
        goal = final_bits(base, text)
        enough = [t["tokens"] for t in budgets if t["seed"] == base["seed"] and final_bits(t, text) <= goal]
        found[base["seed"]] = min(enough) / tokens if enough else None
    return found


def _what(found: Mapping[str, Any]) -> str:
    bench, facts = found["bench"], found["facts"]
    geometry = bench["geometry"]
    skipped = sum(t["skipped"] for t in found["trials"])
    steps = sum(t["steps"] for t in found["trials"])
    trained = sum(facts["tokens"][f"{name}/train"] for name in facts["sources"])
    return (
        f"{found['parameters'] / 1e6:.1f} M parameters ({geometry['num_hidden_layers']} layers of width "
        f"{geometry['hidden_size']}, {geometry['vocab_size']:,} entries trained on the text), windows of "
        f"{bench['sequence_length']}, {bench['batch']:,} tokens a step, {bench['precision']}; {found['tokens']:,} "
        f"tokens a run, {found['tokens'] / trained:.2f} of an epoch of {', '.join(facts['sources'])}. "
        f"{len(found['trials'])} runs in {found['minutes']:.1f} minutes. Held out: documents of the same sources, "
        f"and {NEW}. The guard skipped {skipped:,} of {steps:,} steps.\n\n"
        "Weight decay 0.1, gradients cut at norm 1, AdamW's betas 0.9 and 0.95, Muon's momentum 0.95; warm-up 5 % of "
        "the steps, then cosine to a tenth, linear to 0, or WSD with 30 % linear decay to 0. Muon's updates are scaled "
        "to the size of AdamW's (`match_rms_adamw`); its AdamW part (embedding, norms, biases) has the same rate."
    )


def _rates(trials: Runs, names: Sequence[str], rates: Sequence[float]) -> str:
    rows = []
    for name in names:
        tried = {t["rate"]: t for t in trials if t["purpose"] == "rate" and t["setting"] == name}
        best = best_rate(trials, name)
        cells = [_bits([final_bits(tried[rate], SAME)]) for rate in rates]
        edge = "yes" if best in (min(rates), max(rates)) else "no"
        rows.append((name, *(f"**{c}**" if r == best else c for c, r in zip(cells, rates, strict=True)), edge))
    text = f"Bits per character of {SAME} on seed {CHOOSING}, by peak rate; the best goes on."
    return text + "\n\n" + table(("setting", *(f"{rate:g}" for rate in rates), "best at the edge"), rows)


def _seeds(trials: Runs, names: Sequence[str]) -> str:
    base = {text: [final_bits(t, text) for t in seed_runs(trials, BASELINE)] for text in (SAME, NEW)}
    rows = []
    for name in names:
        runs = seed_runs(trials, name)
        alone = next((t for t in trials if t["purpose"] == "time" and t["setting"] == name), None)
        cells = []
        for text in (SAME, NEW):
            bits = [final_bits(t, text) for t in runs]
            apart = mean(a - b for a, b in zip(bits, base[text], strict=True))
            cells += [_bits(bits), "" if name == BASELINE else f"{apart:+.3f}"]
        took = f"{mean(t['seconds'] for t in runs):.0f}"
        rows.append(
            (name, f"{runs[0]['rate']:g}", *cells, took, f"{1000 * alone['seconds_per_step']:.1f}" if alone else "")
        )
    text = (
        f"Mean of seeds {', '.join(map(str, REPORTING))} and, after ±, their standard deviation; the difference to "
        f"{BASELINE} is of the same seed, so of the same weights at first and the same order of text. Seconds of a run "
        "are beside the others, milliseconds of a step alone on the device (median)."
    )
    head = (
        "setting", "rate", SAME, "to the baseline", NEW, "to the baseline", "seconds a run", "ms a step, alone",
    )  # fmt: skip
    return text + "\n\n" + table(head, rows)


def _reach(trials: Runs, tokens: int) -> str:
    rows = []
    for text in (SAME, NEW):
        shares = smallest_budgets(trials, tokens, text)
        rows.append((text, *("not reached" if s is None else f"{s:.0%}" for s in shares.values())))
    seeds = [t["seed"] for t in seed_runs(trials, BASELINE)]
    return (
        f"The smallest budget with which {CANDIDATE}, at its one rate and with its schedule fitted to the budget, ends "
        f"no higher than {BASELINE} with all tokens, by seed.\n\n"
        + table(("held-out text", *(f"seed {s}" for s in seeds)), rows)
    )


def _curves(trials: Runs, names: Sequence[str], text: str) -> Figure:
    curves, keys, late = [], [], 0.0
    for n, name in enumerate(names):
        runs = seed_runs(trials, name)
        x = np.array([row["tokens"] for row in runs[0]["evaluations"]], dtype=float)
        y = np.array([[row[text] for row in run["evaluations"]] for run in runs])
        curves.append(Curve(Series(x, y.mean(0)), n, spread=y.std(0, ddof=1) if len(runs) > 1 else None))
        keys.append(Key(f"{name} {y[:, -1].mean():.3f}", n + 1, "solid"))
        late = max(late, float(y.mean(0)[2]))
    drawing = draw(f"curves-{text}", f"bits per character of {text}", curves, WIDE, Scale(top=late))
    return Figure("", f"bits per character of {text}", ("", ""), drawing, drawing, keys)


def _budgets(trials: Runs, text: str) -> Figure:
    by_tokens: dict[int, list[float]] = {}
    for t in [t for t in trials if t["purpose"] == "budget"] + seed_runs(trials, CANDIDATE):
        by_tokens.setdefault(t["tokens"], []).append(final_bits(t, text))
    x = np.array(sorted(by_tokens), dtype=float)
    y = np.array([mean(by_tokens[int(tokens)]) for tokens in x])
    spread = np.array([stdev(by_tokens[int(tokens)]) if len(by_tokens[int(tokens)]) > 1 else 0.0 for tokens in x])
    goal = mean(final_bits(t, text) for t in seed_runs(trials, BASELINE))
    curves = [Curve(Series(x, y), 0, spread=spread), level(goal, float(x.max()), 1)]
    keys = [Key(CANDIDATE, 1, "solid"), Key(f"{BASELINE}, all tokens {goal:.3f}", 2, "dashed")]
    drawing = draw(f"reach-{text}", f"bits per character of {text}, by budget", curves, WIDE, Scale())
    return Figure("", f"bits per character of {text} at the end of a budget", ("", ""), drawing, drawing, keys)


def _keep(name: str, figures: Sequence[Figure]) -> str:
    path = RESULTS / f"{datetime.date.today()}-optimizers-{name}.svg"
    path.write_text(stand_alone(figures), "utf-8")
    return f"![{name}]({path.name})"


def _bits(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
