"""What a tuning run keeps of the model that it began with."""

from buddygpt.training.tuning import first_figures


def test_a_run_that_goes_on_keeps_its_first_figures(tmp_path):
    assert first_figures(tmp_path, lambda: {"a": 1.0}, resumed=False) == {"a": 1.0}
    assert first_figures(tmp_path, lambda: {"a": 2.0}, resumed=True) == {"a": 1.0}


def test_figures_of_an_earlier_try_do_not_count(tmp_path):
    """A try that ended before its first checkpoint may have begun with another model."""
    first_figures(tmp_path, lambda: {"a": 1.0}, resumed=False)
    assert first_figures(tmp_path, lambda: {"a": 2.0}, resumed=False) == {"a": 2.0}
    assert first_figures(tmp_path, lambda: {"a": 3.0}, resumed=True) == {"a": 2.0}
