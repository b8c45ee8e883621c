"""Other people's operations do what their ledgers say, and no ledger says more than they do."""

from __future__ import annotations

import importlib.util
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from functional_paged.conformance import BackendNotFound, all_cases, find_adapter
from functional_paged.conformance.run.ledger import Ledger, read_ledger
from functional_paged.internal import CLAUSES
from tests.helpers import command_line

LEDGERS = Path(__file__).parents[1] / "functional_paged" / "conformance" / "peers"
PACKAGES = {
    "torch-index-put": "torch",
    "torch-index-copy": "torch",
    "torch-paged-attention": "torch",
    "jax-at-set": "jax",
    "vllm-cpu": "vllm",
}


def ledger_file(peer: str) -> Path:
    return LEDGERS / f"{peer.replace('-', '_')}.toml"


def ledger_of(peer: str) -> Ledger:
    return read_ledger(ledger_file(peer))


@pytest.mark.parametrize("peer", PACKAGES)
def test_peer_does_what_its_ledger_says(peer: str) -> None:
    if importlib.util.find_spec(PACKAGES[peer]) is None:
        pytest.skip(f"the package {PACKAGES[peer]} is not installed")
    words = ("--backend", peer, "--quick", "--ledger", ledger_file(peer), "--jobs", 1)
    assert command_line("check", *words).exit_code == 0


@pytest.mark.parametrize("peer", PACKAGES)
def test_peer_is_found_by_its_name_or_says_why_not(peer: str) -> None:
    if importlib.util.find_spec(PACKAGES[peer]) is None:
        with pytest.raises(BackendNotFound, match="cannot load: "):
            find_adapter(peer)
    else:
        assert find_adapter(peer).name == peer


def test_without_its_package_a_peer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "functional_paged.conformance.peers.vllm_cpu"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendNotFound, match="the package vllm-cpu is not installed"):
        find_adapter("vllm-cpu")


def test_every_ledger_belongs_to_a_peer() -> None:
    assert set(LEDGERS.glob("*.toml")) == set(map(ledger_file, PACKAGES))
    assert [ledger_of(peer).backend for peer in PACKAGES] == list(PACKAGES)


@pytest.mark.parametrize("peer", PACKAGES)
def test_ledger_speaks_of_cases_and_names_a_clause(peer: str) -> None:
    for known in ledger_of(peer).known:
        assert any(fnmatchcase(case.id, known.id) for case in all_cases()), known.id
        assert known.reason.partition(":")[0] in {clause.id for clause in CLAUSES}, known.reason
