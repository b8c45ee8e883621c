"""Finding the library and the device: every reason is kept, nothing fails at import."""

from __future__ import annotations

import sys

import pytest
import torch

import bridges
from bridges import BackendUnsupported
from bridges import _registry as registry
from bridges.ixformer import IxformerBackend, model
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from functional_paged import SlotMapping

KERNEL = "def paged_store_kv_cache_with_block_table(*args, **kwargs): pass\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package `ixformer` with the given files on the path, for one test."""

    def write(files):
        for name, text in {"ixformer/__init__.py": "", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.setattr(registry, "_named", {})
    monkeypatch.setattr(registry, "_reasons", {})
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "ixformer"]:
        del sys.modules[name]


def iluvatar(monkeypatch, name="Iluvatar BI-V150"):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "ixformer.functions: ModuleNotFoundError"),
        ({"ixformer/functions.py": ""}, "ixformer.functions has no paged_store_kv_cache"),
        ({"ixformer/functions.py": "raise OSError('libixf.so: no such file')"}, "libixf.so"),
        ({"ixformer/functions.py": "from ixformer import gone"}, "cannot import name 'gone'"),
    ],
)
def test_a_library_that_cannot_load_keeps_its_reason(install, files, reason):
    install(files)
    why_not = bridges.available_backends()["ixformer"]
    assert why_not is not None
    assert reason in why_not
    assert "ixformer.inference.functions" in why_not
    with pytest.raises(BackendUnsupported, match="backend 'ixformer' cannot load") as refusal:
        registry.find("ixformer")
    assert reason in str(refusal.value)
    assert "ixformer" not in dict(registry.choices(None, torch.device("cpu")))


@pytest.mark.parametrize(
    "files",
    [
        {"ixformer/functions.py": KERNEL},
        {"ixformer/inference/__init__.py": "", "ixformer/inference/functions.py": KERNEL},
        {
            "ixformer/functions.py": "",
            "ixformer/inference/__init__.py": "",
            "ixformer/inference/functions.py": KERNEL,
        },
    ],
)
def test_the_library_is_found_in_either_place_and_chosen_first(install, files, monkeypatch):
    install(files)
    iluvatar(monkeypatch)
    assert bridges.available_backends()["ixformer"] is None
    assert registry.choices(None, torch.device("cuda"))[0][0] == "ixformer"


def test_without_a_device_the_library_is_not_used(install):
    install({"ixformer/functions.py": KERNEL})
    why_not = bridges.available_backends()["ixformer"]
    assert why_not is not None
    assert "no Iluvatar device: torch.cuda.is_available() is False" in why_not


def test_another_vendors_device_is_refused(install, monkeypatch):
    install({"ixformer/functions.py": KERNEL})
    iluvatar(monkeypatch, "Some Other GPU")
    with pytest.raises(BackendUnsupported, match="the device is 'Some Other GPU'"):
        IxformerBackend()


def test_tensors_elsewhere_are_refused_on_an_iluvatar_machine(monkeypatch):
    iluvatar(monkeypatch)
    backend = IxformerBackend(ModelFunctions())
    with pytest.raises(BackendUnsupported, match="got cpu; move them or use backend='torch'"):
        bridges.plan(
            SlotMapping(torch.tensor([0])),
            cache=torch.zeros(1, 1, 1, 1),
            num_tokens=1,
            backend=backend,
        )


def test_functions_without_the_kernel_are_refused():
    functions = ModelFunctions(KernelSemantics(block_table_kernel=False))
    with pytest.raises(BackendUnsupported, match="functions must have paged_store_kv_cache"):
        IxformerBackend(functions, device_check=False)


def test_the_model_is_never_chosen(monkeypatch):
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    assert registry.name_of(model.backend()).startswith("ixformer-model")
    for name in registry._LOADERS:
        monkeypatch.setitem(registry._reasons, name, "gone")
        monkeypatch.delitem(registry._named, name, raising=False)
    with pytest.raises(BackendUnsupported, match="no backend can serve cpu"):
        registry.choices(None, torch.device("cpu"))


def test_a_library_is_looked_for_once(install, monkeypatch):
    tries = []
    monkeypatch.setitem(registry._LOADERS, "ixformer", lambda: tries.append(1) or IxformerBackend())
    for _ in range(3):
        registry.choices(None, torch.device("cpu"))
    assert len(tries) == 1
