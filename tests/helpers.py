"""What several test modules use: arrays to store, and code or commands to run.

Imports no framework; a function that needs one loads it.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from functional_paged import PAD, IndexSpec, reference
from functional_paged.conformance import Mismatch
from functional_paged.conformance.bits import DTYPES, pattern
from functional_paged.conformance.cases.steps import Step, table
from functional_paged.conformance.cases.suite import forms_of
from functional_paged.conformance.run.compare import compare


@contextmanager
def loaded_again(module: ModuleType) -> Iterator[None]:
    """A module loaded a second time; afterwards it is the first again, whose classes are in use."""
    before = dict(vars(module))
    importlib.reload(module)
    try:
        yield
    finally:
        vars(module).clear()
        vars(module).update(before)


def module_of(path: Path) -> ModuleType:
    """A script of the project, loaded as a module."""
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses looks its module up
    found.loader.exec_module(module)
    return module


def clauses_of(test: str) -> list[str]:
    """The clauses that a test is named after: C8 and C9 for `test_c8_c9_...`."""
    found = re.match(r"test((?:_[cq]\d+)+)_", test)
    return found[1].upper().split("_")[1:] if found else []


def i32(*values: Any) -> np.ndarray:
    """The values as an int32 array; lists are its rows."""
    return np.array(values, np.int32)


def filled(shape: tuple[int, ...], dtype: str, salt: int) -> np.ndarray:
    """An array in which every element has bits of its own, with NaN payloads in float dtypes."""
    return pattern(math.prod(shape), DTYPES[dtype], salt, payloads=True).reshape(shape)


def specs_by_form(step: Step, shape: tuple[int, int, int, int]) -> dict[str, IndexSpec]:
    """The step in each form that can say it."""
    return {one.index_spec.form: one.index_spec for one in forms_of(step, shape)}


SHAPE = (5, 2, 3, 7)
"""Of a small cache, whose axes are all different."""

STEP = table([[4, PAD, 2], [0, 1, 3], [3, 0, 1]], [1, -1, 7], [6, 2, 3], num_tokens=12)
"""A hole, a padded row, a row that runs past its table, and one more state than the spec names."""

FORMS, SPEC = specs_by_form(STEP, SHAPE), STEP.index_spec


def inputs(dtype: str = "bf16", num_tokens: int = STEP.num_tokens) -> tuple[np.ndarray, np.ndarray]:
    """A cache of `SHAPE`, and states for it."""
    _, kv_heads, _, head_dim = SHAPE
    return filled(SHAPE, dtype, salt=1), filled((num_tokens, kv_heads, head_dim), dtype, salt=2)


def difference(got: Any, cache: np.ndarray, states: np.ndarray, spec: IndexSpec) -> Mismatch | None:
    """The first element of the whole cache that is not as in the reference."""
    return compare("cache", np.asarray(got), reference.store_single(cache, states, spec), cache)


# Read where it is used, in a module that has `jax`.
on_cpu = pytest.mark.skipif("jax.default_backend() != 'cpu'", reason="only CPU widens small floats")


def jax_stores() -> dict[str, Callable[..., Any]]:
    """The JAX store by the way it is called."""
    import jax

    import functional_paged

    return {
        "eager": functional_paged.store_single,
        "jax.jit": jax.jit(functional_paged.store_single),
        "functional_paged.jit": functional_paged.jit(functional_paged.store_single),
        "donated": functional_paged.store_single_donated,
    }


def on_device(tree: Any) -> Any:
    """The arrays of a tree as JAX arrays in memory of JAX's own, which a donated store may take."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda array: jnp.array(array, copy=True), tree)


_COLLECTIVE = re.compile(
    r"all-gather|all-reduce|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter|\bsend\b|\brecv\b"
)


def collectives(program: Any) -> set[str]:
    """Operations between devices in a program that JAX compiled."""
    lines = program.as_text().splitlines()
    return {found for line in lines for found in _COLLECTIVE.findall(line.partition("metadata")[0])}


def command_line(*words: object) -> Any:
    """Run `functional-paged` in this process; has `exit_code`, `stdout` and `stderr`."""
    from typer.testing import CliRunner

    from functional_paged._cli.app import app  # typer runs only its own object

    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


HEAVY = ("torch", "jax", "jaxlib", "ml_dtypes", "rich", "typer", "transformers", "ixformer")


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def loaded_by(code: str, among: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of some modules a fresh process has loaded after it ran this code."""
    done = run(f"{code}\nimport sys\nprint('loaded:', *(set(sys.modules) & set({among})))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def without(*names: str) -> str:
    """Code after which these modules cannot be imported, as where they are not installed."""
    return f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler"
)
DYNAMO_BACKENDS = ["aot_eager", pytest.param("inductor", marks=needs_compiler)]


def check_blocks(blocks: Any) -> None:
    """The invariants of a `BlockAllocator`."""
    named = [block for row in blocks.rows for block in row.blocks]
    free = [block for block in range(blocks.num_blocks) if block not in named]
    assert sorted(blocks.free) == free  # free, or some row's
    assert blocks.references == [named.count(block) for block in range(blocks.num_blocks)]
    for row in blocks.rows:
        assert len(set(row.blocks)) == len(row.blocks)
        assert 0 <= row.length <= len(row.blocks) * blocks.block_size
