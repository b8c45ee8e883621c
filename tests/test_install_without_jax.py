"""Where JAX is not installed, as on a serving machine: bridge, probe and drop-in work."""

from __future__ import annotations

from tests.helpers import loaded_by, run, without

NO_JAX = without("jax", "jaxlib", "jaxtyping", "beartype", "ml_dtypes")

BRIDGE = """
import torch, bridges
from bridges.ixformer import IxformerBackend
from bridges.ixformer.model import ModelFunctions
from functional_paged import BlockTable, SlotMapping
backend = IxformerBackend(ModelFunctions(), device_check=False)
cache = torch.zeros(4, 1, 2, 3)
table = torch.tensor([[3, 1]], dtype=torch.int32)
spec = BlockTable(table, torch.tensor([1]).int(), torch.tensor([0, 2]).int())
step = bridges.plan(spec, cache=cache, num_tokens=2, backend=backend, check=True)
assert step.route == "native"
bridges.store_single_(cache, torch.ones(2, 1, 3), step)
slots = SlotMapping(torch.tensor([0, -1]))
bridges.store_single_(cache, torch.ones(2, 1, 3), slots, backend=backend)
assert cache.sum() == 9
assert "ixformer" in bridges.available_backends()["ixformer"]
"""

PROBE = """
from bridges.ixformer import probe
from bridges.ixformer.model import ModelFunctions
report = probe(ModelFunctions(), "cpu")
assert report["prefill"].status == "proven"
try:
    probe()
except RuntimeError as error:
    assert "no usable ixformer" in str(error)
else:
    raise AssertionError("there is no ixformer here")
"""

MOJO = """
import torch
from bridges.mojo import MojoStorePagedSingleCache, build_paged_kv_chunk_metadata
table, contexts = torch.tensor([[3, 1]]).int(), torch.tensor([1]).int()
chunks = build_paged_kv_chunk_metadata(table, torch.tensor([0, 2]).int(), contexts, 2)
cache = torch.zeros(4, 1, 2, 3)
MojoStorePagedSingleCache()(torch.ones(2, 1, 3), cache, chunk_metadata=chunks)
assert cache.sum() == 6
"""


def test_without_jax_bridge_probe_and_drop_in_work():
    loaded = loaded_by(NO_JAX + BRIDGE + PROBE + MOJO)
    assert "torch" in loaded
    assert loaded.isdisjoint({"jax", "jaxlib", "ml_dtypes"})


def test_with_jax_at_hand_none_of_it_is_loaded():
    assert loaded_by(BRIDGE + PROBE + MOJO).isdisjoint({"jax", "jaxlib"})


def test_a_use_of_jax_would_be_caught():
    done = run(f"{NO_JAX}{BRIDGE}\nfrom functional_paged import store_single")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'jax'"
