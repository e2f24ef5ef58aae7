import pytest

from buddygpt.model.cost import count_flops
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.shipped import find_recipe
from buddygpt.training.cards import ASSUMED_MFU, CARDS, find_card
from buddygpt.training.forecast import assumed_hours


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", "RTX 4090 D"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A800-SXM4-80GB", "A800 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H800", "H800"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA L40S", "L40S"),
        ("Ascend910B2", "Ascend 910B2"),
    ],
)
def test_a_card_is_known_by_the_name_that_torch_gives_it(device, name):
    assert find_card(device).name == name


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 NVL", "NVIDIA L40",
        "NVIDIA GeForce GTX 1080", "x86_64, 2 threads", "Apple GPU",
    ],
)  # fmt: skip
def test_another_card_with_the_same_number_is_not_taken_for_it(device):
    assert find_card(device) is None


def test_every_card_finds_itself():
    for card in CARDS:
        assert find_card(card.words) == card


def test_speed_follows_from_peak_and_share_but_for_models_too_small():
    recipe = load_recipe(find_recipe("0.3b"))
    hours = assumed_hours(recipe.model, recipe.pretrain, 5, 312e12)
    assert hours.tokens_per_second == pytest.approx(ASSUMED_MFU * 312e12 / count_flops(recipe.model, 1024).training)
    assert hours.training == pytest.approx(35e9 / hours.tokens_per_second / 3600, rel=1e-3)
    assert 0 < hours.judging < 0.01 * hours.training
    assert assumed_hours(recipe.model, recipe.pretrain, 5, 312e12, 8).total == pytest.approx(hours.total / 8)
    tiny = load_recipe(find_recipe("tiny"))
    slow, fast = (assumed_hours(tiny.model, tiny.pretrain, 1, peak).tokens_per_second for peak in (312e12, 989e12))
    assert slow == fast  # launching kernels is what takes the time
