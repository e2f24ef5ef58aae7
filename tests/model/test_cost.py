"""Counts from the config alone against the built model, torch's own counter and what autograd and optimizers hold."""

import gc

import pytest
import torch
from peft import get_peft_model
from torch.utils import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, experts
from buddygpt.model.cost import as_section, cache_bytes, count_flops
from buddygpt.model.loss import CHUNK_BYTES
from buddygpt.model.memory import activation_bytes, loss_bytes, training_memory
from buddygpt.model.modeling import CACHE
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.geometry import count_parameters, count_updates
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.lora import LoraSection
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.sft import SFTSection
from buddygpt.recipe.shipped import shipped_recipes
from buddygpt.training.lora import lora_config, share_inputs
from buddygpt.training.optimizers import build_optimizer
from tests.model.held import Held

SHIPPED = sorted(shipped_recipes())
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "learning_rate": 1e-3},
    "muon": {"kind": "muon", "learning_rate": 1e-2, "adamw_learning_rate": 1e-3},
}


def shipped(name, **changes):
    return load_recipe(shipped_recipes()[name]).model.model_copy(update=changes)


def section(**changes):
    base = {
        "tokens": "1M", "tokens_per_batch": "1Ki", "sequence_length": 64, "micro_batch_size": 4,
        "optimizer": OPTIMIZERS["adamw"], "schedule": {"kind": "cosine"}, "save_every": 1, "eval_every": 1,
    }  # fmt: skip
    return PretrainSection.model_validate(base | changes)


def test_parameters_are_those_of_the_built_model(make, variant):
    model = make(variant)
    counted = count_parameters(as_section(model.config))
    assert counted.total == model.num_parameters()
    assert counted.embedding == model.get_input_embeddings().weight.numel()
    assert counted.vectors == sum(p.numel() for p in model.parameters() if p.ndim == 1)


@pytest.mark.parametrize("name", SHIPPED)
def test_parameters_of_shipped_recipes_are_those_of_the_built_model(name):
    with torch.device("meta"):
        model = BuddyGPTForCausalLM(BuddyGPTConfig.from_recipe(load_recipe(shipped_recipes()[name])))
    assert count_parameters(shipped(name)).total == model.num_parameters()


def counted_flops(model, length, train):
    """What FlopCounterMode counts for a token. On a CPU it knows no fused attention: `eager` is plain products."""
    ids = torch.randint(model.config.vocab_size, (2, length))
    with FlopCounterMode(display=False) as counter:
        if train:
            model(ids, shift_labels=ids, use_cache=False).loss.backward()
        else:
            with torch.no_grad():
                model(ids, use_cache=False)
    return counter.get_total_flops() / ids.numel()


def test_flops_are_those_that_torch_counts(make, variant):
    model = make(variant, attn_implementation="eager")
    flops = count_flops(model.config, 96, causal=False)
    assert flops.forward == pytest.approx(counted_flops(model, 96, train=False), rel=0.01)
    assert flops.training == pytest.approx(counted_flops(model.train(), 96, train=True), rel=0.01)


@pytest.mark.parametrize("name", SHIPPED)
def test_flops_of_shipped_recipes_are_those_that_torch_counts(name):
    """Their own widths; fewer layers and a smaller vocabulary."""
    recipe = load_recipe(shipped_recipes()[name], ["model.num_hidden_layers=1"])
    config = BuddyGPTConfig.from_recipe(recipe, attn_implementation="eager")
    config.vocab_size = 500
    model = BuddyGPTForCausalLM(config).train()
    flops = count_flops(config, 32, causal=False)
    assert flops.training == pytest.approx(counted_flops(model, 32, train=True), rel=0.01)


def test_causal_attention_needs_half_of_the_square():
    whole, half = count_flops(shipped("0.1b"), 1024, causal=False), count_flops(shipped("0.1b"), 1024)
    assert half.scores == whole.scores / 2
    assert (half.layers, half.head) == (whole.layers, whole.head)
    assert half.training == 3 * half.forward


@pytest.mark.parametrize(
    ("name", "flops"),
    [("0.1b", 0.99e9), ("0.1b-32k", 0.4435e9), ("0.3b", 2.44e9), ("0.3b-mla", 2.645e9), ("0.7b-moe", 2.537e9)],
)
def test_training_flops_of_the_family(name, flops):
    """Six for each weight that a product uses, and the scores of 1,024 tokens; idle experts cost nothing."""
    assert count_flops(shipped(name), 1024).training == pytest.approx(flops, rel=0.01)


def wrappers():
    """What selective checkpointing holds, in this process."""
    found = [o for o in gc.get_objects() if type(o) is checkpoint._VersionWrapper]
    return [wrapper for wrapper in found if torch.is_tensor(wrapper.val)]


def kept_bytes(model, precision, batch=4, length=64):
    """Bytes that a forward pass keeps for the backward one, each storage once, without the parameters themselves.

    What autograd saves, what selective checkpointing keeps beside it, and the gradients that the loss holds.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}
    wrapped = {id(wrapper) for wrapper in wrappers()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    ids = torch.randint(model.config.vocab_size, (batch, length))
    positions = torch.arange(length).repeat(batch, 1)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        node = model(ids, shift_labels=ids, position_ids=positions).loss.grad_fn
    for wrapper in wrappers():
        if id(wrapper) not in wrapped:
            pack(wrapper.val)
    while not hasattr(node, "grads"):
        node = node.next_functions[0][0]
    return sum(count for count, _ in kept.values()) + sum(grad.nbytes for grad in node.grads)


@pytest.mark.parametrize("checkpointing", [False, True, "selective"], ids=["kept", "recomputed", "selective"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_activations_are_those_that_autograd_keeps(make, variant, precision, checkpointing):
    model = make(variant, hidden_size=64, num_hidden_layers=3).train()
    if checkpointing:
        model.selective = checkpointing == "selective"
        model.gradient_checkpointing_enable()
    geometry, rows = as_section(model.config), 4 * 64
    parts = activation_bytes(geometry, rows, precision, checkpointing, "cpu")
    parts.pop("one layer", None)  # it comes in the backward pass
    loss = loss_bytes(geometry, rows, precision, "cpu")
    expected = sum(parts.values()) + loss["gradient of the head"] + loss["gradient of the hidden states"]
    assert expected == pytest.approx(kept_bytes(model, precision), rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, "selective"], ids=["kept", "selective"])
@pytest.mark.parametrize("variant", ["moe", "mla-moe"])
def test_activations_of_grouped_experts_are_those_that_autograd_keeps(make, variant, checkpointing, monkeypatch):
    """A GPU's way; torch has it on a CPU too, one product after the other."""
    monkeypatch.setattr(experts, "_is_grouped", lambda *args: True)
    model = make(variant, hidden_size=64, num_hidden_layers=3, router_aux_loss_coef=0.01).train()
    if checkpointing:
        model.selective = True
        model.gradient_checkpointing_enable()
    geometry = as_section(model.config)
    loss, parts = loss_bytes(geometry, 256, "bf16", "cpu"), activation_bytes(geometry, 256, "bf16", checkpointing)
    expected = sum(parts.values()) - parts.get("one layer", 0)
    expected += loss["gradient of the head"] + loss["gradient of the hidden states"]
    assert expected == pytest.approx(kept_bytes(model, "bf16"), rel=0.1)


def test_checkpointing_keeps_one_whole_layer():
    geometry = shipped("0.3b")
    whole, saved, some = (activation_bytes(geometry, 8192, "bf16", on) for on in (False, True, "selective"))
    ends = ("last norm", "token ids", "rotary angles")
    assert saved["one layer"] * 24 == sum(v for k, v in whole.items() if k not in ends)
    assert saved["layer inputs"] == 24 * 8192 * 1024 * 4
    assert sum(saved.values()) < sum(whole.values()) / 5 < sum(some.values()) < 0.65 * sum(whole.values())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_weights_gradients_and_moments_are_those_of_a_step(make, variant, kind):
    model = make(variant).train()
    recipe = section(optimizer=OPTIMIZERS[kind])
    optimizer = build_optimizer(model, recipe.optimizer)
    ids = torch.randint(97, (2, 16))
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    memory = training_memory(model.config, recipe, recipe.sequence_length, "cpu")
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters())
    states = [o.state for o in getattr(optimizer, "pair", (optimizer,))]
    held = [t for state in states for tensors in state.values() for t in tensors.values() if torch.is_tensor(t)]
    assert memory.optimizer == sum(t.nbytes for t in held if t.ndim)  # without the counters of steps


def highest(model, recipe, accumulation, documents):
    """Bytes that torch holds at most in two steps of training."""
    optimizer = build_optimizer(model, recipe.optimizer)
    shape = recipe.micro_batch_size, recipe.sequence_length
    with Held(*model.parameters()) as held:
        for _ in range(2):
            for _ in range(accumulation):
                ids = torch.randint(model.config.vocab_size, shape)
                packed = {"document_ids": (torch.arange(shape[1]) // 20).repeat(shape[0], 1)} if documents else {}
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                    loss = model(ids, shift_labels=ids.clone(), use_cache=False, num_items_in_batch=1, **packed).loss
                loss.backward()
                del loss
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return held.most


RUNS = {
    "one micro-batch": (1, True, {}),
    "accumulated": (3, True, {}),
    "whole windows": (3, False, {}),
    "fp32": (1, False, {"precision": "fp32"}),
    "recomputed": (2, True, {"gradient_checkpointing": True}),
    "muon": (2, True, {"optimizer": OPTIMIZERS["muon"]}),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_highest_is_what_torch_holds_at_most(make, variant, run):
    """Of all moments: in the loss, as the backward pass begins and ends, in the optimizer's step."""
    accumulation, documents, changes = RUNS[run]
    model = make(variant, hidden_size=64, num_hidden_layers=3, vocab_size=600, max_position_embeddings=256).train()
    recipe = section(sequence_length=128, tokens_per_batch=512 * accumulation, **changes)
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    memory = training_memory(
        model.config, recipe, 128, "cpu", accumulated=accumulation > 1, attention="gathered" if documents else "plain"
    )
    assert memory.total == pytest.approx(highest(model, recipe, accumulation, documents), rel=0.1)


def tuning(schema, **changes):
    base = {
        "data": {"sources": [{"kind": "demo"}]}, "batch_size": 4, "micro_batch_size": 4,
        "optimizer": OPTIMIZERS["adamw"], "schedule": {"kind": "cosine"}, "sequence_length": 128,
    }  # fmt: skip
    return schema.model_validate(base | changes)


UPDATES = {
    "bf16": {},
    "fp32": {"precision": "fp32"},
    "a high rank": {"lora": {"rank": 64}},
    "accumulated": {"batch_size": 12},
    "recomputed": {"gradient_checkpointing": True},
    "muon": {"optimizer": OPTIMIZERS["muon"]},
}


@pytest.mark.parametrize("run", UPDATES)
@pytest.mark.parametrize("variant", ["gqa", "mla", "mla-moe"])
def test_low_rank_updates_take_what_torch_holds_at_most(make, variant, run):
    """The frozen weights have no gradients and no moments, and the head none."""
    recipe = tuning(SFTSection, **{"lora": {"rank": 4}} | UPDATES[run])
    accumulation = recipe.batch_size // recipe.micro_batch_size
    plain = make(variant, hidden_size=64, num_hidden_layers=3, vocab_size=600, max_position_embeddings=256)
    model = get_peft_model(plain, lora_config(recipe.lora)).train()
    share_inputs(model)
    if recipe.gradient_checkpointing:
        plain.gradient_checkpointing_enable()
        plain.enable_input_require_grads()
    geometry = as_section(plain.config)
    assert count_updates(geometry, recipe.lora.rank) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = training_memory(geometry, recipe, 128, "cpu", accumulated=accumulation > 1)
    assert memory.total == pytest.approx(highest(model, recipe, accumulation, False), rel=0.1)


@pytest.mark.parametrize("variant", ["gqa", "mla-moe"])
def test_updates_share_their_layers_inputs_and_say_the_same(make, variant):
    """peft's own way keeps a copy of its own for each update; losses and gradients are bit for bit the same."""
    found = []
    for shares in (False, True):
        model = get_peft_model(make(variant, hidden_size=64), lora_config(LoraSection(rank=4))).train()
        if shares:
            share_inputs(model)
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter)
        ids = torch.randint(97, (4, 64))
        with Held(*model.parameters()) as held, torch.autocast("cpu", torch.bfloat16):
            loss = model(ids, shift_labels=ids, use_cache=False).loss
        kept = held.now
        loss.backward()
        found.append((kept, loss.detach(), [p.grad for p in model.parameters() if p.requires_grad]))
    (more, loss, grads), (less, same_loss, same_grads) = found
    assert less < more
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(a, b) for a, b in zip(grads, same_grads, strict=True))


def test_a_live_reference_is_a_model_of_its_own():
    model = shipped("0.1b")
    kept, live, updates = (
        training_memory(model, tuning(DPOSection, **changes), 128, "cuda").weights
        for changes in ({}, {"reference": "live"}, {"reference": "live", "lora": {}})
    )
    assert live == 2 * kept
    assert kept < updates < 1.1 * kept


WIDE = {
    "a large vocabulary": ({"vocab_size": 20_000}, 64, 2, "in the loss"),
    "experts": ({"variant": "moe", "moe_intermediate_size": 512, "n_routed_experts": 16}, 64, 1, "pass ends"),
    "few tokens": ({"optimizer": "muon", "intermediate_size": 2048}, 8, 1, "in the optimizer's step"),
}


@pytest.mark.parametrize("case", WIDE)
def test_the_moment_of_the_height_depends_on_the_shape(make, case):
    changes, length, accumulation, moment = WIDE[case]
    changes = {"hidden_size": 64, "num_hidden_layers": 3} | changes
    optimizer = OPTIMIZERS[changes.pop("optimizer", "adamw")]
    model = make(**changes).train()
    recipe = section(
        micro_batch_size=1, sequence_length=length, tokens_per_batch=length * accumulation, optimizer=optimizer
    )
    memory = training_memory(model.config, recipe, length, "cpu", accumulated=accumulation > 1, attention="gathered")
    assert moment in memory.moment
    assert memory.total == pytest.approx(highest(model, recipe, accumulation, True), rel=0.1)


def test_a_gpu_moves_matrices_of_one_shape_together():
    """Experts of 1,536 x 256: 42 of them are 16 Mi elements. Of a large matrix there is one at least."""
    recipe = section(optimizer=OPTIMIZERS["muon"])
    moe = shipped("0.7b-moe")
    assert training_memory(moe, recipe, 128, "cuda").update == 10 * 42 * 1536 * 256
    assert training_memory(moe, recipe, 128, "cpu").update == 10 * max(1536 * 1536, 1536 * 512)
    wide = shipped("0.3b")  # of width 1,024
    wide = wide.model_copy(update={"mlp": wide.mlp.model_copy(update={"intermediate_size": 2**15})})
    assert training_memory(wide, recipe, 128, "cuda").update == 10 * 2**25


def test_what_an_attention_backend_keeps_beside_is_counted(make):
    """Weights of the softmax by plain products, which the fused kernels do not keep."""
    model = make(hidden_size=64, num_hidden_layers=3, vocab_size=600, attn_implementation="eager").train()
    recipe = section(sequence_length=128, tokens_per_batch=512)
    memory = training_memory(model.config, recipe, 128, "cpu", accumulated=False, attention="scores")
    assert memory.total == pytest.approx(highest(model, recipe, 1, False), rel=0.1)
    whole = training_memory(model.config, recipe, 128, "cpu", accumulated=False)
    assert memory.total > 1.5 * whole.total


def test_the_loss_stays_within_its_budget():
    """Logits of 16 x 1,024 rows over 151,669 entries would be 14.9 GB; those of a chunk, also in fp32, half a GB."""
    parts = loss_bytes(shipped("0.1b"), 16 * 1024)
    budget = CHUNK_BYTES["accelerator"]
    assert 0.9 * budget < 3 * parts["logits of a chunk"] <= budget
    assert parts["one after the other"] <= 4 / 3 * budget  # torch's softmax makes one fp32 copy more
    assert parts["gradient of the head"] == 4 * 151_669 * 768
    filled = 151_680  # to whole 64: a copy, in fp32 too
    assert loss_bytes(shipped("0.1b"), 16 * 1024, "fp32")["head in the compute type"] == 4 * filled * 768
    assert loss_bytes(shipped("0.1b-32k"), 16 * 1024, "fp32")["head in the compute type"] == 0
    here = loss_bytes(shipped("0.1b"), 16 * 1024, "bf16", "cpu")
    assert 0.9 * CHUNK_BYTES["cpu"] < here["logits of a chunk"] <= CHUNK_BYTES["cpu"]


def test_cache_bytes_are_those_of_the_cache(make, variant):
    model = make(variant).to(torch.bfloat16)
    cache = model(torch.randint(97, (1, 10)), use_cache=True)[CACHE]
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert 10 * cache_bytes(model.config) == held
