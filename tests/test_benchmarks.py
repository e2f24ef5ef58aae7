import importlib
from pathlib import Path

import pytest

MODULES = sorted(file.stem for file in (Path(__file__).parents[1] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_a_measurement_follows_when_what_it_measures_is_renamed(name):
    importlib.import_module(f"benchmarks.{name}")
