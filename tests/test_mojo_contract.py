"""The contract test for mojo_opset: its data is the reference's, and it sees what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import module_of

FOLDER = Path(__file__).with_name("mojo_contract")

RUN = """
import sys, types
import pytest, torch
from tests import mojo_stand_in
mojo_stand_in.install(sys.modules, priorities=("ttx", "torch"))
from bridges import mojo
from bridges.ixformer.model import KernelSemantics, ModelFunctions
cores = mojo.register()
sys.modules["ixformer"] = types.ModuleType("ixformer")
sys.modules["ixformer.functions"] = ModelFunctions(KernelSemantics(store_mode="value"))

class TTXStorePagedSingleCache(cores["MojoStorePagedSingleCache"]):
    def forward(self, states, cache, table=None, cu=None, contexts=None, *, chunk_metadata=None):
        if chunk_metadata is not None:
            raise NotImplementedError("no chunks")
        table = torch.where(table < 0, len(cache) - 1, table)  # holes are the last block
        return super().forward(states, cache, table, cu, contexts)

class TTXStoreLowrank(cores["MojoStoreLowrank"]):
    def forward(self, label_cache, *rest):
        raise NotImplementedError("nothing at all")

sys.exit(pytest.main(sys.argv[1:]))
"""


def test_the_data_is_current():
    made = module_of(FOLDER / "make_data.py")
    assert made.PATH.read_text() == made.text(), "python tests/mojo_contract/make_data.py"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    config = tmp_path_factory.mktemp("contract") / "pytest.ini"
    config.write_text("[pytest]\n")
    options = [f"--config-file={config}", "-rA", "-p", "no:cacheprovider", "-p", "no:jaxtyping"]
    test = FOLDER / "test_paged_store_contract.py"
    done = subprocess.run(
        [sys.executable, "-c", RUN, *options, str(test)],
        capture_output=True,
        text=True,
        cwd=FOLDER.parents[1],
    )
    return done.stdout + done.stderr


def rows(output):
    """The table at the end, as cells by operator, backend and clause."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["C5", "C6"])
    clauses, found = lines[start].split(), {}
    for line in lines[start + 1 :]:
        if not line.startswith("Store"):
            return found
        name, cells = line[:36].strip(), line[36:]
        cells = [cells[i : i + 5].strip() for i in range(0, 5 * len(clauses), 5)]
        found[name] = dict(zip(clauses, cells, strict=True))
    raise AssertionError(output)


def test_the_drop_ins_keep_every_clause_of_it(output):
    ours = {name: set(row.values()) for name, row in rows(output).items() if "torch" in name}
    assert len(ours) == 4, output
    assert set().union(*ours.values()) == {"ok", ""}, output


def test_what_is_wrong_is_named(output):
    row = rows(output)["StorePagedSingleCache ttx"]
    assert {clause for clause, cell in row.items() if cell == "BAD"} == {"C8"}
    assert re.search(
        r"StorePagedSingleCache ttx, C8 hole between two blocks \(table, bfloat16\): cache: "
        r"block 7 offset 0 has token 4, must be kept; block 7 offset 1 has token 5",
        output,
    )
    assert "FAILED" in output
    assert re.search(r"FAILED .*\[MojoStorePagedSingleCache-ttx-C8\]", output)
    assert set(rows(output)["StoreLowrank ttx"].values()) == {"-", ""}
    assert re.search(r"SKIPPED .*raises NotImplementedError: nothing at all", output)
    assert len(re.findall(r"^FAILED", output, re.M)) == 1


def test_the_sides_that_store_mode_writes_are_told(output):
    assert re.search(
        r"with store_mode=1: the key side is kept, the value side is written as specified", output
    )
    assert re.search(
        r"without store_mode: the key side is written as specified, the value side is written as",
        output,
    )
