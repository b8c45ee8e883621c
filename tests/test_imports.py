"""What loads what, each probed in a process of its own."""

from __future__ import annotations

import pytest

import functional_paged
from tests.helpers import HEAVY, loaded_by, run, without

USE_NUMPY = """
import numpy as np
import functional_paged as fp
from functional_paged import reference
spec = fp.BlockTable(np.int32([[4, 2]]), np.int32([15]), np.int32([0, 2]))
shape = (8, 2, 16, 4)
fp.check_spec(spec, cache_shape=shape, num_tokens=2)
assert fp.to_slots(spec, cache_shape=shape, num_tokens=3).slots.tolist() == [79, 32, -1]
assert fp.plan_chunks(spec, cache_shape=shape, num_tokens=2).chunks.shape == (2, 4)
cache = reference.store_single(np.zeros(shape), np.ones((2, 2, 4)), spec)
assert cache.sum() == 16
"""

USE_TORCH = """
import torch
import bridges
from functional_paged import SlotMapping
cache = torch.zeros(2, 1, 2, 3)
spec = SlotMapping(torch.tensor([3, -1]))
step = bridges.plan(spec, cache=cache, num_tokens=2, check=True)
bridges.store_single_(cache, torch.ones(2, 1, 3), step)
bridges.store_single_(cache, torch.ones(2, 1, 3), spec)
assert cache.sum() == 3
assert bridges.available_backends()["torch"] is None
"""


def test_functional_paged_loads_no_framework():
    assert loaded_by("import functional_paged") == set()


def test_functional_paged_loads_nothing_that_takes_as_long_as_numpy():
    assert loaded_by("import functional_paged", ("jaxtyping", "numpy.f2py")) == set()
    assert loaded_by("import functional_paged, numpy.f2py", ("numpy.f2py",)) == {"numpy.f2py"}


def test_functional_paged_loads_no_framework_in_use():
    assert loaded_by(USE_NUMPY) == set()


def test_a_name_that_does_not_exist_loads_nothing():
    probe = "import functional_paged\nassert not hasattr(functional_paged, 'nothing')"
    assert loaded_by(f"{probe}\ndir(functional_paged)") == set()


NOT_FOR_SERVING = ("jax", "jaxlib", "functional_paged._explain", "functional_paged.conformance")


def test_bridges_loads_no_jax_no_drawing_and_no_kit_in_use():
    assert loaded_by(USE_TORCH, ("torch", *NOT_FOR_SERVING)) == {"torch"}


def test_bridges_loads_no_compiler_in_use():
    assert loaded_by(USE_TORCH, ("torch", "torch._dynamo", "sympy")) == {"torch"}


def test_bridges_has_its_operators_and_loads_no_compiler_of_theirs():
    use = "import torch, bridges\ntorch.ops.functional_paged.store_rows.default"
    assert loaded_by(use, ("torch", "numba", "triton")) == {"torch"}
    assert "numba" in loaded_by(USE_TORCH, ("numba",))


def test_the_probe_reports_each_of_them():
    code = "\n".join(f"import {name}" for name in NOT_FOR_SERVING)
    assert loaded_by(code, NOT_FOR_SERVING) == set(NOT_FOR_SERVING)


JAX_NAMES = ["store_single", "store_single_donated", "load_single", "transfer", "jit"]


def test_at_most_fifteen_names_are_public():
    assert len(functional_paged.__all__) <= 15
    assert all(hasattr(functional_paged, name) for name in functional_paged.__all__)


def test_names_that_load_late_are_listed():
    done = run("import functional_paged as fp\nprint(*(set(fp.__all__) - set(vars(fp))))\ndir(fp)")
    assert set(done.stdout.split()) == {*JAX_NAMES, "explain"}
    assert set(functional_paged.__all__) <= set(dir(functional_paged))


@pytest.mark.parametrize("name", JAX_NAMES)
def test_the_jax_store_loads_jax_and_not_torch(name):
    loaded = loaded_by(f"import functional_paged\nfunctional_paged.{name}")
    assert "jax" in loaded
    assert "torch" not in loaded


def test_forms_made_before_jax_loads_are_pytrees_after():
    code = """
import numpy as np
from functional_paged import SlotMapping
spec = SlotMapping(np.int32([3, -1]))
from functional_paged import load_single, store_single
import jax
assert len(jax.tree.leaves(spec)) == 1
cache, states = np.zeros((2, 1, 2, 3), np.float32), np.ones((2, 1, 3), np.float32)
assert jax.jit(store_single)(cache, states, spec).sum() == 3
"""
    assert "jax" in loaded_by(code)


@pytest.mark.parametrize("name", ["jax", "torch", "ml_dtypes"])
def test_the_probe_reports_what_was_loaded(name):
    assert name in loaded_by(f"import functional_paged\nimport {name}")


def test_without_frameworks_the_numpy_part_works():
    everything = without(*HEAVY, "jaxtyping", "beartype")
    assert loaded_by(everything + USE_NUMPY) == set()


def test_without_jax_the_bridges_work():
    assert "torch" in loaded_by(without("jax", "jaxlib", "jaxtyping", "ml_dtypes") + USE_TORCH)


@pytest.mark.parametrize(
    "touch", ["functional_paged.store_single", "from functional_paged import store_single"]
)
def test_without_jax_the_jax_store_is_an_import_error(touch):
    done = run(f"{without('jax')}\nimport functional_paged\n{touch}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'jax'"


def test_what_is_missing_cannot_be_imported():
    # Else the three tests above prove nothing.
    for name in ("jax", "torch"):
        done = run(f"{without(name)}\nimport {name}")
        assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named {name!r}"
