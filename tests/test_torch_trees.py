"""Trees in torch: several caches in one call, each as if it were alone, or none at all."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

import bridges
from bridges.conformance_adapters import tensor_over as tensor
from bridges.ixformer import IxformerBackend
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from functional_paged import PAD, SlotMapping, SpecError, reference
from functional_paged.conformance.bits import as_bits
from tests.helpers import FORMS, SHAPE, STEP, filled

Pair = namedtuple("Pair", "k v")
SPECS = {form: spec.map(torch.from_numpy) for form, spec in FORMS.items()}
MODEL = IxformerBackend(ModelFunctions(), device_check=False)
BACKENDS: dict[str, Any] = {"numba": "numba", "torch": "torch", "ixformer": MODEL}
# Leaves may differ in kv_heads, head_dim and dtype: keys, values, int8 rows and their scales.
KINDS = {"k": ("bf16", 2, 7), "v": ("f32", 1, 4), "q": ("i8", 3, 5), "scale": ("f32", 3, 1)}

pytestmark = pytest.mark.usefixtures("traceable")


def arrays(kinds=KINDS, num_tokens=STEP.num_tokens):
    """Caches, and states for them, by name."""
    num_blocks, _, block_size, _ = SHAPE
    caches = {n: filled((num_blocks, h, block_size, d), t, 1) for n, (t, h, d) in kinds.items()}
    return caches, {n: filled((num_tokens, h, d), t, 2) for n, (t, h, d) in kinds.items()}


def check_all(caches, states, before, spec):
    for name, cache in caches.items():
        want = reference.store_single(before[name], states[name], spec)
        np.testing.assert_array_equal(as_bits(cache), as_bits(want), err_msg=name)


TREES = {
    "dict": lambda of: dict(of),
    "tuple": lambda of: tuple(of.values()),
    "list": lambda of: list(of.values()),
    "named": lambda of: Pair(of["k"], [of["v"], of["q"], of["scale"]]),
    "nested": lambda of: {"kv": (of["k"], of["v"]), "quantised": [{"q": of["q"]}, of["scale"]]},
}


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("tree", "form"), [*((tree, "block_table") for tree in TREES), *(("list", f) for f in FORMS)]
)
def test_c16_each_leaf_is_stored_as_if_alone(tree, form, backend, planned):
    caches, states = arrays()
    before = {name: cache.copy() for name, cache in caches.items()}
    as_tree, given = TREES[tree], SPECS[form]
    cache = as_tree({name: tensor(array) for name, array in caches.items()})
    rows = as_tree({name: tensor(array) for name, array in states.items()})
    if planned:
        first = tensor(caches["k"])
        given = bridges.plan(
            given, cache=first, num_tokens=STEP.num_tokens, backend=BACKENDS[backend]
        )
    options = {} if planned else {"backend": BACKENDS[backend]}

    assert bridges.store_single_(cache, rows, given, **options) is cache

    check_all(caches, states, before, FORMS[form])


def test_a_dict_is_matched_by_its_keys_and_not_by_their_order():
    caches, states = arrays()
    before = {name: cache.copy() for name, cache in caches.items()}
    cache = {name: tensor(array) for name, array in caches.items()}
    rows = {name: tensor(states[name]) for name in reversed(states)}
    bridges.store_single_(cache, rows, SPECS["slots"])
    check_all(caches, states, before, FORMS["slots"])


def test_c18_a_tree_without_a_leaf_stores_nothing():
    for empty in ((), [], {}, ({}, [])):
        assert bridges.store_single_(empty, empty, SPECS["slots"]) is empty


def a_call(**change: Any) -> dict[str, Any]:
    """The arguments of a store of a pair, with one of them changed."""
    kinds = {"k": ("f32", 2, 7), "v": ("f32", 1, 4)}
    caches, states = arrays(kinds)
    call = {
        "cache": [tensor(array) for array in caches.values()],
        "states": [tensor(array) for array in states.values()],
        "spec": SPECS["slots"],
    }
    for name, value in change.items():
        call[name] = value(call[name])
    return call


def second(change):
    return lambda pair: [pair[0], change(pair[1])]


REFUSED = {
    "fewer states": (
        {"states": lambda pair: pair[:1]},
        "C1: states must have the tree of cache, got no leaf states[1]",
    ),
    "fewer caches": (
        {"cache": lambda pair: pair[:1]},
        "C1: cache must have the tree of states, got no leaf cache[1]",
    ),
    "one tensor for two caches": (
        {"states": lambda pair: pair[0]},
        "C1: states must have the tree of cache, got no leaf states[0]",
    ),
    "another nesting": (
        {"states": second(lambda x: {"v": x})},
        "C1: states must have the tree of cache, got no leaf states[1]",
    ),
    "head_dim": (
        {"states": second(lambda x: x[..., :3])},
        "C1: states.shape[2] = 3 must equal head_dim = 4 of cache, in leaf cache[1]",
    ),
    "dtype": (
        {"states": second(lambda x: x.half())},
        "C2: states.dtype must equal cache.dtype = float32, got float16; a store never casts, "
        "in leaf cache[1]",
    ),
    "num_blocks": (
        {"cache": second(lambda x: x[:4])},
        "C1: num_blocks = 4 of cache must equal 5, which the plan was made for, in leaf cache[1]",
    ),
    "block_size": (
        {"cache": second(lambda x: x[:, :, :2])},
        "C1: block_size = 2 of cache must equal 3, which the plan was made for, in leaf cache[1]",
    ),
    "fewer tokens": (
        {"states": second(lambda x: x[:2])},
        "C11: states.shape[0] = 2 must be >= num_tokens = 12, which the plan was made for, "
        "in leaf cache[1]",
    ),
    "device": (
        {"cache": second(lambda x: x.to("meta"))},
        "C3: cache must be on cpu, which the plan was made for, got meta, in leaf cache[1]",
    ),
    "NumPy": (
        {"states": second(lambda x: x.numpy())},
        "C3: states must be a torch tensor for bridges.store_single_, got numpy.ndarray, "
        "in leaf cache[1]",
    ),
    "overlap": (
        {"cache": second(lambda x: x[:1].expand(5, 1, 3, 4))},
        "C20: cache must not overlap itself, got shape (5, 1, 3, 4) with strides (0, 12, 4, 1), "
        "in leaf cache[1]",
    ),
    "grad": (
        {"states": second(lambda x: x.clone().requires_grad_())},
        "C22: states must not require grad, since a store in place has no derivative; call it "
        "under torch.no_grad() or with states.detach(), or differentiate "
        "functional_paged.store_single, in leaf cache[1]",
    ),
}


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("name", REFUSED)
def test_where_one_leaf_is_refused_none_is_stored(name, planned):
    change, message = REFUSED[name]
    call = a_call(**change)
    given = call["spec"]
    if planned:
        given = bridges.plan(given, cache=call["cache"][0], num_tokens=STEP.num_tokens)
    before = [cache.clone() for cache in call["cache"]]
    with pytest.raises(SpecError) as error:
        bridges.store_single_(call["cache"], call["states"], given)
    assert str(error.value) == message
    for cache, old in zip(call["cache"], before, strict=True):
        assert cache.is_meta or torch.equal(cache.view(torch.int32), old.view(torch.int32))


def test_the_same_call_without_the_change_is_taken():
    call = a_call()
    bridges.store_single_(call["cache"], call["states"], call["spec"])


@pytest.mark.parametrize("compiler", [None, "aot_eager"])
@pytest.mark.parametrize("backend", ["torch", "ixformer"])
def test_where_a_backend_refuses_one_leaf_none_is_stored(backend, compiler):
    cache = torch.zeros(4, 1, 2, 8), torch.zeros(4, 1, 2, 8, dtype=torch.complex128)
    states = torch.ones(1, 1, 8), torch.ones(1, 1, 8, dtype=torch.complex128)
    wheel = ModelFunctions(KernelSemantics(dtypes=frozenset({torch.float32})))
    chosen = "torch" if backend == "torch" else IxformerBackend(wheel, device_check=False)
    plan = bridges.plan(
        SlotMapping(torch.tensor([3])), cache=cache[0], num_tokens=1, backend=chosen
    )
    store = bridges.store_single_
    if compiler is not None:
        store = torch.compile(store, backend=compiler)
    with pytest.raises(bridges.BackendUnsupported):
        store(cache, states, plan)
    assert not cache[0].any()


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("compiler", [None, "aot_eager", "eager"])
def test_c17_all_states_are_read_before_the_first_leaf_is_written(compiler):
    """Two rows change places, each of them the other cache's states."""
    buffer = torch.arange(12.0).reshape(2, 3, 1, 2, 1)
    keys, values = buffer[0], buffer[1]
    states = values[0].transpose(0, 1)[:1], keys[0].transpose(0, 1)[:1]
    given = SlotMapping(torch.tensor([0]))
    store = bridges.store_single_
    if compiler is not None:
        store = torch.compile(store, fullgraph=True, backend=compiler)
    store((keys, values), states, given)
    assert buffer.flatten().tolist() == [6, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_two_leaves_in_one_memory_the_later_one_stays(backend):
    cache = torch.zeros(3, 1, 2, 4)
    rows = torch.ones(2, 1, 4), torch.full((2, 1, 4), 2.0)
    given = SlotMapping(torch.tensor([5, PAD]))
    bridges.store_single_((cache, cache), rows, given, backend=BACKENDS[backend])
    assert cache.view(6, 4).unique(dim=0).tolist() == [[0.0] * 4, [2.0] * 4]
    assert cache[2, 0, 1].tolist() == [2.0] * 4


def test_keys_and_values_of_one_buffer_do_not_share_memory():
    buffer = torch.zeros(5, 2, 3, 14)
    keys, values = buffer[..., :7], buffer[..., 7:]
    share = bridges._overlap.share_memory
    assert not share(keys, values)
    assert share(keys, keys)
    assert share(keys, buffer[..., 6:13])
    assert share(values, buffer[..., 6:13])
    assert not share(torch.zeros(3), torch.zeros(3))
    assert share(buffer, values)  # of another shape: not looked at closely
    words = bytearray(40)
    one, other = (torch.frombuffer(words, dtype=torch.int32, count=2, offset=at) for at in (0, 6))
    assert share(one, other)  # half an element apart


def test_c16_leaves_of_every_width_in_one_compiled_call():
    caches, states = arrays()
    before = {name: cache.copy() for name, cache in caches.items()}
    step = torch.compile(bridges.store_single_, fullgraph=True, backend="aot_eager")
    cache = {name: tensor(array) for name, array in caches.items()}
    rows = {name: tensor(array) for name, array in states.items()}
    step(cache, rows, SPECS["block_table"])
    check_all(caches, states, before, FORMS["block_table"])
