"""The drop-ins in mojo_opset's registry, by a stand-in for it."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys

import numpy as np
import pytest
import torch

from bridges import BackendUnsupported, _registry, mojo
from bridges.ixformer import model
from functional_paged import BlockTable, reference
from tests import mojo_stand_in

NAMES = [name for name in mojo.__all__ if name.startswith("Mojo")]
TABLE = torch.tensor([[3, 1]], dtype=torch.int32)
CU = torch.tensor([0, 2], dtype=torch.int32)
CONTEXTS = torch.tensor([15], dtype=torch.int32)


class Modules(dict):
    """Where modules are put for one test."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.monkeypatch = monkeypatch

    def __setitem__(self, name, module):
        self.monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def install(monkeypatch):
    return lambda **options: mojo_stand_in.install(Modules(monkeypatch), **options)


@pytest.fixture
def ixformer_loads(monkeypatch):
    backend = model.backend()
    monkeypatch.setitem(_registry._named, "ixformer", backend)
    return backend


def names_of(cores):
    return {name: sorted(core._registry._registry) for name, core in cores.items()}


def a_store(store):
    """One store of two tokens, compared with the reference."""
    cache, states = torch.zeros(4, 1, 16, 1), torch.ones(2, 1, 1)
    assert store(states, cache, TABLE, CU, CONTEXTS) is cache
    expected = reference.store_single(
        np.zeros((4, 1, 16, 1), np.float32),
        np.ones((2, 1, 1), np.float32),
        BlockTable(*(x.numpy() for x in (TABLE, CONTEXTS, CU))),
    )
    np.testing.assert_array_equal(cache.numpy(), expected)


def test_all_six_are_made_with_both_backends_and_named(install, ixformer_loads):
    install()
    cores = mojo.register()
    assert list(cores) == [
        "MojoStorePagedSingleCache",
        "MojoStorePagedKVCache",
        "MojoStorePagedMLAKVCache",
        "MojoStorePagedKVCacheC8",
        "MojoStoreLowrank",
        "MojoDequantFromPagedKVCache",
    ]
    assert names_of(cores) == {name: ["ixformer", "torch"] for name in cores}
    for home in ("mojo_opset", "mojo_opset.core"):
        assert {name: getattr(sys.modules[home], name) for name in cores} == cores
    store = cores["MojoStorePagedSingleCache"]()
    assert type(store).__name__ == "IxformerStorePagedSingleCache"
    assert store.backend == "ixformer"
    a_store(store)


@pytest.mark.parametrize(
    ("priorities", "platform", "loads"),
    [
        (("ixformer", "ttx", "torch"), "ilu", False),
        (("ttx", "torch"), "npu", True),
        (("torch",), "meta_device", True),
    ],
)
def test_where_ixformer_cannot_be_the_next_backend_serves(
    install, monkeypatch, priorities, platform, loads
):
    install(priorities=priorities, platform=platform)
    if loads:
        monkeypatch.setitem(_registry._named, "ixformer", model.backend())
    cores = mojo.register()
    assert names_of(cores) == {name: ["torch"] for name in cores}
    store = cores["MojoStorePagedSingleCache"]()
    assert type(store).__name__ == "TorchStorePagedSingleCache"
    assert store.backend == "torch"
    a_store(store)


def test_registering_again_changes_nothing(install, ixformer_loads):
    base = install()
    first, made = mojo.register(), len(base.__subclasses__())
    registered = {name: dict(core._registry._registry) for name, core in first.items()}
    assert mojo.register() == first
    assert len(base.__subclasses__()) == made
    assert {n: dict(c._registry._registry) for n, c in first.items()} == registered


@pytest.mark.parametrize("loads", [False, True])
def test_an_operator_of_mojos_own_gets_ours_as_its_ixformer_backend(install, monkeypatch, loads):
    base = install()
    if loads:
        monkeypatch.setitem(_registry._named, "ixformer", model.backend())

    class MojoStorePagedSingleCache(base):
        def forward(self, *args):
            return "its own"

    class IxformerStorePagedSingleCache(MojoStorePagedSingleCache):
        supported_platforms_list = ("ilu",)

    theirs = dict(MojoStorePagedSingleCache._registry._registry)
    cores = mojo.register()
    assert cores["MojoStorePagedSingleCache"] is MojoStorePagedSingleCache
    assert not hasattr(sys.modules["mojo_opset"], "MojoStorePagedSingleCache")
    ours = MojoStorePagedSingleCache._registry._registry
    assert ours["torch"] is theirs["torch"]
    assert (ours["ixformer"] is theirs["ixformer"]) != loads
    assert issubclass(ours["ixformer"], mojo.MojoStorePagedSingleCache) == loads
    store = MojoStorePagedSingleCache()
    if loads:
        a_store(store)
    else:
        assert store() == "its own"
    mojo.register()
    assert MojoStorePagedSingleCache._registry._registry == ours


def test_a_backend_keyword_is_honoured_or_refused(install):
    install()
    cores = mojo.register()
    store = cores["MojoStorePagedSingleCache"](backend="numba-of-another-name")
    with pytest.raises(BackendUnsupported, match="'numba-of-another-name' does not exist"):
        store(torch.ones(2, 1, 1), torch.zeros(4, 1, 16, 1), TABLE, CU, CONTEXTS)
    store = cores["MojoStorePagedSingleCache"](backend=model.backend())
    assert store.backend.name.startswith("ixformer-model")
    a_store(store)
    for made in (cores["MojoDequantFromPagedKVCache"], mojo.MojoDequantFromPagedKVCache):
        with pytest.raises(TypeError, match="backend"):
            made(backend="torch")


def test_a_refusal_is_what_mojos_tests_skip(install):
    assert issubclass(BackendUnsupported, NotImplementedError)
    assert issubclass(BackendUnsupported, RuntimeError)


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_operator_is_called_as_the_drop_in(install, name):
    install()
    core, drop_in = mojo.register()[name], getattr(mojo, name)
    assert issubclass(core, drop_in)
    assert inspect.signature(core.forward) == inspect.signature(drop_in.forward)


def test_without_mojo_opset_registering_says_so():
    with pytest.raises(BackendUnsupported, match="mojo_opset cannot be used"):
        mojo.register()


def test_mojo_opset_finds_the_hook():
    (hook,) = importlib.metadata.entry_points(group="mojo_opset.plugins", name="functional_paged")
    assert hook.load() is mojo.register
