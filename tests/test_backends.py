"""Which backend a call gets, and why not another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bridges
from bridges import BackendUnsupported
from bridges import _registry as registry
from bridges.torch_inplace import TorchBackend
from functional_paged import SlotMapping

SHAPE = (3, 2, 4, 5)
SPEC = SlotMapping(torch.tensor([7, 2]))


class NamedBackend(TorchBackend):
    def __init__(self, name: str):
        self.name = name


class Loader:
    """Loads a backend, or says why it can't; counts how often it is asked."""

    def __init__(self, name: str, reason: str | None = None):
        self.name, self.reason, self.times = name, reason, 0

    def __call__(self) -> bridges.Backend:
        self.times += 1
        if self.reason is not None:
            raise BackendUnsupported(self.reason)
        return NamedBackend(self.name)


@pytest.fixture(autouse=True)
def loaders(monkeypatch) -> dict[str, Loader]:
    """Three backends: the first cannot load, the second is the best that does."""
    known = {
        "vendor": Loader("vendor", "no such device"),
        "fast": Loader("fast"),
        "plain": Loader("plain"),
    }
    monkeypatch.setattr(registry, "_LOADERS", known)
    monkeypatch.setattr(registry, "_named", {})
    monkeypatch.setattr(registry, "_reasons", {})
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    return known


def plan(backend: str | bridges.Backend | None = None) -> bridges.StorePlan:
    return bridges.plan(SPEC, cache=torch.zeros(SHAPE), num_tokens=2, backend=backend)


def test_available_backends_tells_the_reasons():
    assert bridges.available_backends() == {"vendor": "no such device", "fast": None, "plain": None}
    assert list(bridges.available_backends()) == ["vendor", "fast", "plain"]


def test_the_real_registry_has_torch(monkeypatch):
    monkeypatch.undo()
    available = bridges.available_backends()
    assert available["torch"] is None
    assert all(reason is None or reason for reason in available.values())


def test_without_a_wish_the_best_that_loads():
    assert plan().backend == "fast"


def test_by_argument():
    assert plan("plain").backend == "plain"


def test_by_variable(monkeypatch):
    monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "plain")
    assert plan().backend == "plain"


def test_the_argument_precedes_the_variable(monkeypatch):
    monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "plain")
    assert plan("fast").backend == "fast"


def test_an_empty_variable_is_no_wish(monkeypatch):
    monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "")
    assert plan().backend == "fast"


def test_by_object():
    mine = NamedBackend("mine")
    assert registry.find(plan(mine).backend) is mine


def test_an_object_precedes_a_variable_that_names_nothing(monkeypatch):
    monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "nothing")
    assert plan(NamedBackend("mine")).backend == "mine"


UNKNOWN = (
    "backend 'nothing' does not exist; backends: vendor (cannot load: no such device), fast, plain"
)
UNLOADABLE = "backend 'vendor' cannot load: no such device; backends: fast, plain"


@pytest.mark.parametrize(("name", "message"), [("nothing", UNKNOWN), ("vendor", UNLOADABLE)])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_named_backend_that_is_not_there_is_an_error(monkeypatch, by, name, message):
    if by == "variable":
        monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", name)
    wish = name if by == "argument" else None
    with pytest.raises(BackendUnsupported) as error:
        plan(wish)
    assert str(error.value) == message

    cache = torch.zeros(SHAPE)
    with pytest.raises(BackendUnsupported) as error:
        bridges.store_single_(cache, torch.ones(2, 2, 5), SPEC, backend=wish)
    assert str(error.value) == message
    assert not cache.any()


def test_a_named_backend_stays_an_error_when_asked_again():
    # Not the second time either may another one step in.
    for _ in range(2):
        with pytest.raises(BackendUnsupported, match=r"^backend 'vendor' cannot load"):
            plan("vendor")


def test_none_that_loads_is_an_error(loaders):
    for loader in loaders.values():
        loader.reason = "broken"
    message = (
        "no backend can serve cpu; backends: vendor (cannot load: broken), "
        "fast (cannot load: broken), plain (cannot load: broken)"
    )
    with pytest.raises(BackendUnsupported) as error:
        plan()
    assert str(error.value) == message


def test_a_loader_that_breaks_is_not_taken_for_one_that_refuses(loaders, monkeypatch):
    # Its exception shows as what it is; and without a wish for it, another one serves.
    def broken() -> bridges.Backend:
        raise ZeroDivisionError("of a\nlibrary")

    monkeypatch.setitem(registry._LOADERS, "vendor", broken)
    reason = "ZeroDivisionError: of a library"
    assert bridges.available_backends()["vendor"] == reason
    with pytest.raises(BackendUnsupported, match=f"^backend 'vendor' cannot load: {reason}; "):
        plan("vendor")
    assert plan().backend == "fast"


def test_a_backend_loads_once_and_is_one_object(loaders):
    first = registry.find("fast")
    bridges.available_backends()
    assert registry.find(plan().backend) is first
    assert loaders["fast"].times == 1


def test_a_store_asks_the_backend_that_was_chosen():
    calls: list[str] = []

    class Recording(NamedBackend):
        def lower(self, *args, **options):
            calls.append(self.name)
            return super().lower(*args, **options)

    cache = torch.zeros(SHAPE)
    bridges.store_single_(cache, torch.ones(2, 2, 5), SPEC, backend=Recording("mine"))
    step = plan(Recording("planned"))
    bridges.store_single_(cache, torch.ones(2, 2, 5), step)
    assert calls == ["mine", "planned"]
    assert np.count_nonzero(cache) == 20


def test_the_plan_keeps_its_backend_when_the_variable_changes(monkeypatch):
    step = plan("plain")
    monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "vendor")
    cache = torch.zeros(SHAPE)
    bridges.store_single_(cache, torch.ones(2, 2, 5), step)
    assert np.count_nonzero(cache) == 20


class Elsewhere(NamedBackend):
    """Serves another device than the tests have."""

    def serves(self, device: torch.device) -> str | None:
        return None if device.type == "cuda" else f"it needs a GPU, got {device}"


class Refusing(NamedBackend):
    def lower(self, *args, **options):
        raise BackendUnsupported(f"{self.name} has a bad day")


def test_a_device_decides_not_what_loads(loaders):
    loaders["fast"] = lambda: Elsewhere("fast")
    assert plan().backend == "plain"
    assert bridges.available_backends()["fast"] is None
    why_not = {"vendor": "cannot load: no such device", "plain": None}
    for device in ("cpu", torch.device("cpu")):
        assert bridges.available_backends(device) == {
            **why_not,
            "fast": "it needs a GPU, got cpu",
        }
    assert bridges.available_backends("cuda:1") == {**why_not, "fast": None}


@pytest.mark.parametrize("by", ["name", "variable", "object"])
def test_one_that_is_asked_for_and_cannot_serve_the_device_is_an_error(loaders, monkeypatch, by):
    loaders["fast"] = lambda: Elsewhere("fast")
    if by == "variable":
        monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "fast")
    wish = {"name": "fast", "variable": None, "object": Elsewhere("mine")}[by]
    name = "mine" if by == "object" else "fast"
    others = "vendor (cannot load: no such device), "
    others += "fast (it needs a GPU, got cpu), plain" if by == "object" else "plain"
    cache = torch.zeros(SHAPE)
    message = f"backend {name!r} cannot serve: it needs a GPU, got cpu; backends: {others}"
    for call in (
        lambda: plan(wish),
        lambda: bridges.store_single_(cache, torch.ones(2, 2, 5), SPEC, backend=wish),
    ):
        with pytest.raises(BackendUnsupported) as error:
            call()
        assert str(error.value) == message
    assert not cache.any()


def test_a_refusal_goes_to_the_next_one_unless_asked_for(loaders, caplog):
    loaders["fast"] = lambda: Refusing("fast")
    with caplog.at_level("INFO", logger="bridges"):
        assert plan().backend == "plain"
    assert "'fast' refuses, the next one is tried: fast has a bad day" in caplog.text
    with pytest.raises(BackendUnsupported, match="fast has a bad day"):
        plan("fast")
    loaders["plain"] = lambda: Refusing("plain")
    registry._named.clear()
    with pytest.raises(BackendUnsupported, match="plain has a bad day"):
        plan()
