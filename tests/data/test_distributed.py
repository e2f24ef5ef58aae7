"""Preparing text by Slurm's and Ray's executors: the same shards as on one machine; a failed task tells why.

No Slurm has been reached: its commands are imitated by scripts that run the submitted job array on this machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from buddygpt.data import distributed
from buddygpt.data.prepare import prepare
from buddygpt.events import silent
from buddygpt.recipe.errors import BrokenOff, BuddyError

SCRIPTS = {
    "sbatch": """#!/bin/bash
for script; do :; done
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
cp "$script" "$SLURM_HOME/script"
echo "$@" >> "$SLURM_HOME/submitted"
( for task in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here RUN_OFFSET=0 bash "$SLURM_HOME/script"
  done > "$SLURM_HOME/log" 2>&1; rm -f "$SLURM_HOME/queue" ) &
echo busy > "$SLURM_HOME/queue"
disown
echo "Submitted batch job 7"
""",
    "srun": """#!/bin/bash
while [[ $1 != launch_pickled_pipeline ]]; do shift; done
exec "$@"
""",
    "launch_pickled_pipeline": f"""#!/bin/bash
exec {sys.executable} -m datatrove.tools.launch_pickled_pipeline "$@"
""",
    "squeue": """#!/bin/bash
cat "$SLURM_HOME/queue" 2> /dev/null || true
""",
    "scontrol": """#!/bin/bash
echo localhost
""",
    "scancel": """#!/bin/bash
echo "$@" >> "$SLURM_HOME/cancelled"
""",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A machine on which `sbatch` runs a job array one task after the other."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in SCRIPTS.items():
        (folder / name).write_text(script, "utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_HOME", str(folder))
    monkeypatch.setattr(distributed, "POLL", 0.2)
    return folder


SLURM = {"kind": "slurm", "partition": "cpu", "options": {"account": "mine"}, "setup": "true"}


@pytest.mark.slow
def test_slurm_makes_the_same_shards(tmp_path, slurm, make_recipe, many, contents):
    here = prepare(make_recipe(many), tmp_path / "a", silent)
    there = prepare(make_recipe(many, executor=SLURM), tmp_path / "b", silent)
    assert contents(there.path) == contents(here.path)
    script = (slurm / "script").read_text("utf-8")
    assert "#SBATCH --partition=cpu" in script and "#SBATCH --account=mine" in script
    assert len((slurm / "submitted").read_text("utf-8").splitlines()) == 3  # read, match, tokenise


@pytest.mark.slow
def test_a_fault_on_a_node_is_told_here(tmp_path, slurm, make_recipe, many):
    with (Path(many) / "1.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(BuddyError, match=r"1\.jsonl:41: not JSON"):
        prepare(make_recipe(many, executor=SLURM), tmp_path / "cache", silent)


@pytest.mark.slow
def test_tasks_that_vanish_are_told_and_kept(tmp_path, slurm, make_recipe, many):
    (slurm / "srun").write_text("#!/bin/bash\nexit 1\n", "utf-8")
    with pytest.raises(BrokenOff, match=r"5 of 5 tasks ended without a result; their logs are in .*read"):
        prepare(make_recipe(many, executor=SLURM), tmp_path / "cache", silent)
    (slurm / "srun").write_text(SCRIPTS["srun"], "utf-8")
    again = prepare(make_recipe(many, executor=SLURM), tmp_path / "cache", silent)
    assert again.manifest["sources"]["many"]["documents_out"] == 200


def test_where_there_is_no_slurm(tmp_path, make_recipe, many, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuddyError, match="no `sbatch` on this machine"):
        prepare(make_recipe(many, executor=SLURM), tmp_path / "cache", silent)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_makes_the_same_shards(tmp_path, make_recipe, many, contents):
    here = prepare(make_recipe(many), tmp_path / "a", silent)
    there = prepare(make_recipe(many, executor={"kind": "ray", "memory_per_cpu": 0.5}), tmp_path / "b", silent)
    assert contents(there.path) == contents(here.path)
    with (Path(many) / "1.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(BuddyError, match=r"1\.jsonl:41: not JSON"):
        prepare(make_recipe(many, executor={"kind": "ray", "memory_per_cpu": 0.5}), tmp_path / "c", silent)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_where_there_is_no_ray(tmp_path, make_recipe, many):
    with pytest.raises(BuddyError, match="ray is not installed; `pip install ray`"):
        prepare(make_recipe(many, executor={"kind": "ray"}), tmp_path / "cache", silent)


def test_the_executor_changes_no_key(tmp_path, make_recipe, many):
    first = prepare(make_recipe(many), tmp_path, silent)
    assert prepare(make_recipe(many, executor=SLURM), tmp_path, silent) == first
    assert json.loads((first.path / "manifest.json").read_text("utf-8"))["key"] == first.path.name
