import pytest

from buddygpt.model.memory import training_memory
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.shipped import find_recipe
from buddygpt.training import room
from buddygpt.training.room import Room, divisors, find_room, largest_micro_batch, needed
from buddygpt.training.setup import Device


def test_divisors():
    assert divisors(1280) == [n for n in range(1, 1281) if 1280 % n == 0]
    assert divisors(1) == [1] and divisors(13) == [1, 13]


def test_the_largest_that_fits_is_taken():
    assert largest_micro_batch([1, 2, 4, 8], lambda size: 100 * size, 450) == 4
    assert largest_micro_batch([1, 2, 4, 8], lambda size: 100 * size, 800) == 8
    assert largest_micro_batch([1, 2, 4, 8], lambda size: 100 * size, 99) is None


def test_a_machine_has_room():
    found = find_room(Device("cpu", "", 1))
    assert 0 < found.free <= found.total


def test_a_container_has_no_more_than_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "GROUP", tmp_path)
    machine = room.find_room(Device("cpu", "", 1))
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    assert find_room(Device("cpu", "", 1)).total == machine.total
    (tmp_path / "memory.max").write_text("1000\n")
    assert find_room(Device("cpu", "", 1)) == Room(500, 1000)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_more_is_needed_than_the_tensors(kind):
    recipe = load_recipe(find_recipe("0.1b"))
    memory = training_memory(recipe.model, recipe.pretrain, 1024, kind)
    assert memory.total + 5e8 < needed(memory, recipe.model, kind) < 1.5 * memory.total
