"""One backend object a name in a process, whoever asks first, and words for what is no backend."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch

import bridges
from bridges import BackendUnsupported
from bridges import _registry as registry
from bridges.torch_inplace import TorchBackend
from functional_paged import SlotMapping

SPEC = SlotMapping(torch.tensor([3, -1]))


@pytest.fixture
def fresh(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_named", {})
    monkeypatch.setattr(registry, "_reasons", {})
    monkeypatch.delenv(registry.VARIABLE, raising=False)


def at_once(function, threads: int = 8) -> list:
    """What a function returns in several threads that start together."""
    results: list = []
    ready = threading.Barrier(threads)

    def run() -> None:
        ready.wait()
        results.append(function())

    started = [threading.Thread(target=run) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert len(results) == threads
    return results


def slow_loader(loaded: list) -> TorchBackend:
    time.sleep(0.05)  # as a vendor's library
    loaded.append(TorchBackend())
    return loaded[-1]


def test_threads_that_ask_first_get_one_object(fresh, monkeypatch):
    loaded: list = []
    monkeypatch.setitem(registry._LOADERS, "torch", lambda: slow_loader(loaded))
    assert len(set(map(id, at_once(lambda: registry.find("torch"))))) == 1
    assert len(loaded) == 1


def test_without_the_lock_they_would_not(fresh, monkeypatch):
    class NoLock:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    loaded: list = []
    monkeypatch.setitem(registry._LOADERS, "torch", lambda: slow_loader(loaded))
    monkeypatch.setattr(registry, "_lock", NoLock())
    at_once(lambda: registry.find("torch"))
    assert len(loaded) > 1


def test_a_plan_of_one_thread_is_stored_by_name_in_another(fresh):
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        plans = at_once(
            lambda: bridges.plan(SPEC, cache=torch.zeros(4, 1, 2, 3), num_tokens=2, backend="torch")
        )
    finally:
        sys.setswitchinterval(switch)
    for plan in plans:
        cache = torch.zeros(4, 1, 2, 3)
        bridges.store_single_(cache, torch.ones(2, 1, 3), plan, backend="torch")
        assert cache.sum() == 3


def test_an_object_of_a_caller_gets_one_name_in_all_threads(fresh):
    mine, other = TorchBackend(), TorchBackend()
    assert set(at_once(lambda: registry.name_of(mine))) == {"torch#2"}
    assert registry.name_of(other) == "torch#3"
    assert (registry.find("torch#2"), registry.find("torch#3")) == (mine, other)
    assert registry.find("torch") not in (mine, other)
    assert registry.name_of(registry.find("torch")) == "torch"


def test_a_reason_is_noted_once_and_whole(fresh, monkeypatch):
    tries: list = []

    def loader() -> TorchBackend:
        tries.append(1)
        time.sleep(0.05)
        raise OSError("libvendor.so:\n  no such file")

    monkeypatch.setitem(registry._LOADERS, "ixformer", loader)
    reasons = at_once(lambda: bridges.available_backends()["ixformer"])
    assert set(reasons) == {"OSError: libvendor.so: no such file"}
    assert len(tries) == 1


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("backend", [5, b"torch", TorchBackend, object(), ["torch"], True])
def test_what_is_no_backend_is_told_so(backend, planned):
    cache, given = torch.zeros(4, 1, 2, 3), SPEC
    if planned:
        given = bridges.plan(SPEC, cache=cache, num_tokens=2, backend="torch")
    with pytest.raises(TypeError) as error:
        bridges.store_single_(cache, torch.ones(2, 1, 3), given, backend=backend)
    assert str(error.value).startswith(
        f"backend must be a name, a bridges.Backend or None, got {backend!r}; backends: ixformer"
    )
    assert not cache.any()
    with pytest.raises(BackendUnsupported, match=r"^backend '' does not exist"):
        bridges.plan(SPEC, cache=cache, num_tokens=2, backend="")
