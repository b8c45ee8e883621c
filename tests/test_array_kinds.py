"""Arrays of every kind against every entry point: taken rightly, or refused in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import bridges
from functional_paged import (
    BlockTable,
    ChunkPlan,
    SlotMapping,
    SpecError,
    check_spec,
    explain,
    load_single,
    plan_chunks,
    reference,
    store_single,
    store_single_donated,
    to_slots,
)
from functional_paged.conformance.bits import as_bits
from tests.helpers import i32

SHAPE, STATES_SHAPE = (4, 1, 2, 3), (2, 1, 3)
SPECS = {
    "slots": SlotMapping(i32(3, 5)),
    "chunks": ChunkPlan(i32([0, 1, 1, 1], [1, 2, 1, 1])),
    "block_table": BlockTable(i32([1], [2]), i32(1, 1), i32(0, 1, 2)),
}


@dataclass(frozen=True)
class Entry:
    """A public function that takes arrays.

    Attributes:
      name: as error texts have it.
      call: runs it on a cache, states and a spec; it may leave out what it has no use for.
      takes: what turns NumPy arrays into those of each framework that it takes.
      tensors: which of cache and states it takes.
    """

    name: str
    call: Callable[[Any, Any, Any], Any]
    takes: dict[str, Callable[[np.ndarray], Any]]
    tensors: tuple[str, ...]


NUMPY, JAX, TORCH = {"NumPy": np.copy}, {"JAX": jnp.array}, {"torch": torch.tensor}
SIZES = {"cache_shape": SHAPE, "num_tokens": 2}
BOTH, CACHE = ("cache", "states"), ("cache",)
REFERENCE, STORE = "functional_paged.reference", "the JAX store of functional_paged"
BRIDGE, LOWERING = "bridges.store_single_", "functional_paged.to_slots"
ENTRIES = {
    "reference.store": Entry(REFERENCE, reference.store_single, NUMPY, BOTH),
    "reference.load": Entry(
        REFERENCE, lambda c, s, i: reference.load_single(c, i, 2), NUMPY, CACHE
    ),
    "store": Entry(STORE, store_single, NUMPY | JAX, BOTH),
    "donated": Entry(STORE, store_single_donated, NUMPY | JAX, BOTH),
    "load": Entry(STORE, lambda c, s, i: load_single(c, i, 2), NUMPY | JAX, CACHE),
    "store_": Entry(BRIDGE, bridges.store_single_, TORCH, BOTH),
    "plan": Entry(BRIDGE, lambda c, s, i: bridges.plan(i, cache=c, num_tokens=2), TORCH, CACHE),
    "to_slots": Entry(LOWERING, lambda c, s, i: to_slots(i, **SIZES), NUMPY | JAX | TORCH, ()),
    "plan_chunks": Entry(
        LOWERING, lambda c, s, i: plan_chunks(i, **SIZES), NUMPY | JAX | TORCH, ()
    ),
    "check_spec": Entry(LOWERING, lambda c, s, i: check_spec(i, **SIZES), NUMPY | JAX | TORCH, ()),
    "explain": Entry(LOWERING, lambda c, s, i: explain(i, **SIZES), NUMPY | JAX | TORCH, ()),
}
BY_FRAMEWORK = [(name, kind) for name, entry in ENTRIES.items() for kind in entry.takes]


def inputs(form: str = "slots") -> dict[str, Any]:
    cache = np.arange(24, dtype=np.float32).reshape(SHAPE) + 0.5
    return {"cache": cache, "states": -np.ones(STATES_SHAPE, np.float32), "spec": SPECS[form]}


def in_framework(given: dict[str, Any], convert: Any) -> dict[str, Any]:
    return {
        name: value.map(convert) if name == "spec" else convert(value)
        for name, value in given.items()
    }


def refused(entry: Entry, given: dict[str, Any], clause: str, text: str) -> None:
    """The call must raise the clause with a text, and leave the cache alone."""
    cache = given["cache"]
    before = as_bits(np.array(cache)) if isinstance(cache, np.ndarray) else None
    with pytest.raises(SpecError) as error:
        entry.call(given["cache"], given["states"], given["spec"])
    assert str(error.value).startswith(f"{clause}: {text}"), str(error.value)
    if before is not None:
        np.testing.assert_array_equal(as_bits(np.array(cache)), before)


@pytest.mark.parametrize("form", SPECS)
@pytest.mark.parametrize(("name", "framework"), BY_FRAMEWORK)
def test_the_arrays_of_an_entry_are_taken(name, framework, form):
    entry = ENTRIES[name]
    given = in_framework(inputs(form), entry.takes[framework])
    got = entry.call(given["cache"], given["states"], given["spec"])
    if "states" in entry.tensors:
        want = inputs(form)["cache"]
        want[1, 0, 1] = want[2, 0, 1] = -1
        np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("foreign", ["NumPy", "JAX", "torch"])
@pytest.mark.parametrize("name", ENTRIES)
def test_c3_arrays_of_another_framework_are_refused(name, foreign):
    entry = ENTRIES[name]
    if foreign in entry.takes:
        return
    convert = {**NUMPY, **JAX, **TORCH}[foreign]
    noun = "torch tensor" if entry.takes == TORCH else f"{' or '.join(sorted(entry.takes))} array"
    home = in_framework(inputs(), next(iter(entry.takes.values())))
    for field in (*entry.tensors, "spec"):
        given = {**home, field: in_framework(inputs(), convert)[field]}
        array = given["spec"].slots if field == "spec" else given[field]
        shown = f"{type(array).__module__}.{type(array).__qualname__}"
        shown_name = "slots" if field == "spec" else field
        text = f"{shown_name} must be a {noun} for {entry.name}, got {shown}"
        refused(entry, given, "C3", text)


NO_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "masked": lambda x: np.ma.masked_array(x, np.ones(x.shape, bool)),
    "list": lambda x: x.tolist(),
    "None": lambda x: None,
    "matrix": lambda x: np.asmatrix(x.reshape(1, -1)),
    "ShapeDtypeStruct": lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", NO_ARRAYS)
@pytest.mark.parametrize("name", ENTRIES)
def test_c1_c4_what_is_no_array_is_refused(name, kind):
    entry, make = ENTRIES[name], NO_ARRAYS[kind]
    convert = next(iter(entry.takes.values()))
    home = in_framework(inputs(), convert)
    for field in entry.tensors:
        if entry.name == STORE and kind in ("list", "None"):
            continue  # a tree, which the JAX store takes apart
        if name == "store_" and kind == "list":
            continue  # a tree to torch's store, too
        given = {**home, field: make(inputs()[field])}
        refused(entry, given, "C1", f"{field} must be an array, got ")
    for form, spec in SPECS.items():
        for index, array in spec.arrays().items():
            if (index, kind) == ("cu_q_lens", "None"):
                continue  # decode
            arrays = {
                **in_framework(inputs(form), next(iter(entry.takes.values())))["spec"].arrays()
            }
            given = {**home, "spec": type(spec)(**{**arrays, index: make(array)})}
            refused(entry, given, "C4", f"{index} must be an int32 array, got ")


DTYPES: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "another byte order": lambda shape: np.ones(shape, np.dtype(np.float32).newbyteorder()),
    "object": lambda shape: np.ones(shape, object),
    "text": lambda shape: np.ones(shape, "U1"),
    "bytes": lambda shape: np.ones(shape, "S1"),
    "record": lambda shape: np.ones(shape, [("a", "f4"), ("b", "i4")]),
    "date": lambda shape: np.ones(shape, "M8[s]"),
    "duration": lambda shape: np.ones(shape, "m8[s]"),
    "long double": lambda shape: np.ones(shape, np.longdouble),
    "complex long double": lambda shape: np.ones(shape, np.clongdouble),
    "void": lambda shape: np.zeros(shape, "V4"),
}


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", ["reference.store", "reference.load", "store", "donated", "load"])
def test_c2_numpy_dtypes_that_are_not_moved_are_refused(name, kind):
    make, entry = DTYPES[kind], ENTRIES[name]
    # A program for this shape may have been compiled already.
    entry.call(*inputs().values())
    given = {"cache": make(SHAPE), "states": make(STATES_SHAPE), "spec": SPECS["slots"]}
    with pytest.raises(SpecError) as error:
        entry.call(*given.values())
    assert str(error.value) == (
        f"C2: cache must hold numbers in native byte order, got dtype {make(SHAPE).dtype}"
    )


@pytest.mark.parametrize("name", ["store", "donated", "load"])
def test_c2_random_keys_of_jax_are_refused(name):
    keys = jax.random.split(jax.random.key(0), SHAPE)
    with pytest.raises(SpecError, match=r"^C2: cache must hold numbers .* got dtype key<"):
        ENTRIES[name].call(keys, keys[:2, :, 0], SPECS["slots"])


@pytest.mark.parametrize("name", ENTRIES)
def test_c4_index_arrays_of_another_byte_order_are_refused(name):
    entry = ENTRIES[name]
    if "NumPy" not in entry.takes:
        return
    swapped = np.dtype(np.int32).newbyteorder()
    given = {**inputs(), "spec": SlotMapping(i32(3, 5).astype(swapped))}
    refused(entry, given, "C4", f"slots must be int32 or int64, got {swapped}")


NUMBERS = [
    *(np.dtype(code) for code in "?bBhHiIlLqQefdFD"),
    *(np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "int4")),
]


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_c2_every_dtype_of_numbers_is_taken_by_the_reference(dtype):
    cache = (np.arange(24) % 7).reshape(SHAPE).astype(dtype)
    states = np.ones(STATES_SHAPE).astype(dtype)
    got = reference.store_single(cache, states, SPECS["slots"])
    want = cache.copy()
    want[1, 0, 1] = want[2, 0, 1] = states[0, 0]
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))


def quantised(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 1.0, 0, torch.qint8)


LAYOUTS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str, str]] = {
    "quantised": (quantised, "C2", "must not be quantised"),
    "sparse": (torch.Tensor.to_sparse, "C20", "must be strided, got layout torch.sparse_coo"),
    "nested": (
        lambda x: torch.nested.nested_tensor(list(x)), "C20", "must be strided, got a nested tensor"
    ),
}  # fmt: skip
if torch.backends.mkldnn.is_available():
    LAYOUTS["mkldnn"] = (torch.Tensor.to_mkldnn, "C20", "must be strided, got layout torch._mkldnn")


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", LAYOUTS)
def test_c2_c20_torch_tensors_that_are_not_plain_are_refused(kind):
    make, clause, text = LAYOUTS[kind]
    home = in_framework(inputs(), torch.tensor)
    for name in ("store_", "plan"):
        for field in ENTRIES[name].tensors:
            given = {**home, field: make(home[field])}
            refused(ENTRIES[name], given, clause, f"{field} {text}")
    np.testing.assert_array_equal(home["cache"].numpy(), inputs()["cache"])


@pytest.mark.parametrize(
    "name", ["store_", "plan", "to_slots", "plan_chunks", "check_spec", "explain"]
)
def test_c4_index_tensors_without_strides_are_refused(name):
    home = in_framework(inputs(), torch.tensor)
    sparse = {**home, "spec": SlotMapping(home["spec"].slots.to_sparse())}
    refused(ENTRIES[name], sparse, "C4", "slots must be strided, got layout torch.sparse_coo")


@pytest.mark.usefixtures("cpu_backend")
def test_c16_views_that_torch_conjugates_or_negates_are_taken():
    values = torch.view_as_complex(torch.arange(12.0).reshape(2, 1, 3, 2))
    negated = SlotMapping(torch._neg_view(torch.tensor([-3, -5])))
    for states in (values.conj(), torch._neg_view(values.real), values.conj().imag):
        cache = torch.zeros(SHAPE, dtype=states.dtype)
        bridges.store_single_(cache, states, negated)
        assert torch.equal(cache[1, :, 1], states[0].resolve_conj().resolve_neg())
        assert torch.equal(cache[2, :, 1], states[1].resolve_conj().resolve_neg())


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
def test_c20_caches_that_torch_conjugates_or_negates_are_refused(planned):
    given = SPECS["slots"].map(torch.tensor)
    if planned:
        given = bridges.plan(given, cache=torch.zeros(SHAPE), num_tokens=2)
    values = torch.view_as_complex(torch.ones(*SHAPE, 2))
    for cache in (values.conj(), torch._neg_view(values.real), values.conj().imag):
        before, states = cache.clone(), torch.zeros(STATES_SHAPE, dtype=cache.dtype)
        with pytest.raises(SpecError) as error:
            bridges.store_single_(cache, states, given)
        assert str(error.value) == "C20: cache must not be a view that torch conjugates or negates"
        assert torch.equal(cache, before)
        bridges.store_single_(before, states, given)  # a copy has what the view shows


def test_views_memory_maps_and_subclasses_of_numpy_are_taken(tmp_path):
    class Named(np.ndarray):
        pass

    mapped = np.memmap(tmp_path / "cache", np.float32, "w+", shape=SHAPE)
    mapped[...] = inputs()["cache"]
    want = reference.store_single(**_named(inputs()))
    for cache in (mapped, inputs()["cache"].view(Named), np.asfortranarray(inputs()["cache"])):
        for store in (reference.store_single, store_single):
            np.testing.assert_array_equal(store(cache, inputs()["states"], SPECS["slots"]), want)


def _named(given: dict[str, Any]) -> dict[str, Any]:
    return {("index_spec" if name == "spec" else name): value for name, value in given.items()}


@pytest.mark.parametrize("lower", [to_slots, plan_chunks])
def test_c3_numpy_index_arrays_follow_those_of_jax(lower):
    spec = SPECS["block_table"]
    mixed = BlockTable(jnp.array(spec.block_table), spec.context_kv_lens, spec.cu_q_lens)
    (got,), (want,) = (lower(s, **SIZES).arrays().values() for s in (mixed, spec))
    assert isinstance(got, jax.Array)
    np.testing.assert_array_equal(got, want)
