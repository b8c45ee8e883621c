"""What each backend of mojo_opset's paged stores does, clause by clause.

Runs inside mojo_opset's own test suite and needs nothing else: put this file and
`paged_store_contract.json` side by side, into
`mojo_opset/tests/accuracy/operators/` for example, and

    pytest test_paged_store_contract.py -rsxf

There is one test for each operator, backend and clause. What comes out of it:

* passed: every bit of every cache is as the clause says;
* skipped: the backend refuses all of it, with `NotImplementedError`;
* failed: a call that the operator's own torch reference serves, and that is not as the clause says;
* xfailed: a call that nobody has promised anything for (a block past the cache, a token in two
  chunks, strided tensors). The words say what the backend does instead.

The end of the run has a table of all of it, with a sentence for each thing that is not as
specified, and, where ixformer is installed, which side its kernel writes with `store_mode=1`.

Caches and states lie in larger buffers, whose other rows are compared too: a row that is written or
read just outside is seen, and harms nothing.
"""

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

mojo_opset = pytest.importorskip("mojo_opset", reason="the contract is for mojo_opset's own tests")

DATA = json.loads(Path(__file__).with_name("paged_store_contract.json").read_text())
GUARD = 2  # blocks before and after each cache, and 16 times as many rows around the states

# The widths of the tensors that an operator stores, and the forms of its index arguments.
OPERATORS = {
    "MojoStorePagedSingleCache": (((2, 128),), ("table", "chunks")),
    "MojoStorePagedKVCache": (((2, 128), (2, 128)), ("table", "chunks")),
    "MojoStorePagedMLAKVCache": (((1, 128), (1, 64)), ("table",)),
    "MojoStoreLowrank": (((2, 128),), ("pairs",)),
}
# Where an operator's own torch reference is known to do something else.
NOT_PROMISED = {("MojoStorePagedMLAKVCache", "C8")}


@dataclass
class Side:
    """One tensor to store, its cache, the buffers that both lie in, and what was in them."""

    name: str
    states: torch.Tensor
    cache: torch.Tensor
    states_buffer: torch.Tensor
    cache_buffer: torch.Tensor

    def __post_init__(self):
        self.rows = bits(self.states_buffer)
        self.before = bits(self.cache_buffer)


@dataclass
class Verdict:
    clause: str
    title: str
    promised: bool
    refused: bool
    faults: list


@dataclass
class Summary:
    """Collects verdicts, and writes them where pytest writes its summary."""

    verdicts: dict = field(default_factory=dict)
    kernel: list = field(default_factory=list)

    def pytest_terminal_summary(self, terminalreporter):
        write = terminalreporter.write_line
        terminalreporter.section("the contract of the paged stores")
        clauses = list(dict.fromkeys(case["clause"] for case in DATA["cases"]))
        write(" " * 36 + "".join(f"{clause:>5}" for clause in clauses))
        for (operator, backend), found in self.verdicts.items():
            cells = [sign([v for v in found if v.clause == clause]) for clause in clauses]
            name = f"{operator.removeprefix('Mojo')} {backend}"
            write(f"{name:<36}" + "".join(f"{cell:>5}" for cell in cells))
        write("ok: as specified, -: refused, ok-: as specified or refused,")
        write("?: other than specified, which nobody promised, BAD: which its reference does")
        for (operator, backend), found in self.verdicts.items():
            name, refusals = f"{operator.removeprefix('Mojo')} {backend}", {}
            for verdict in found:
                for fault in verdict.faults:
                    if verdict.refused:
                        refusals[fault] = refusals.get(fault, 0) + 1
                    else:
                        write(f"{name}, {verdict.title}: {fault}")
            for fault, count in refusals.items():
                write(f"{name}, {count} of {len(found)} cases: {fault}")
        for line in self.kernel:
            write(line)


def sign(verdicts):
    if not verdicts:
        return ""
    if any(v.promised and v.faults and not v.refused for v in verdicts):
        return "BAD"
    if any(v.faults and not v.refused for v in verdicts):
        return "?"
    if all(v.refused for v in verdicts):
        return "-"
    return "ok-" if any(v.refused for v in verdicts) else "ok"


@pytest.fixture(scope="module")
def summary(request):
    collected = Summary()
    request.config.pluginmanager.register(collected)
    return collected


def bits(tensor):
    """The elements as integers of their size, on the host."""
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32}[tensor.element_size()]
    return tensor.detach().cpu().contiguous().view(integer).clone()


def device():
    name = str(importlib.import_module("mojo_opset.utils.platform").get_torch_device())
    return "cpu" if name == "meta" else name


def filled(shape, dtype, salt, any_bits):
    """Rows that are all different; finite numbers unless any bits will do."""
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
    size = 8 * dtype.itemsize
    generator = torch.Generator(device="cpu").manual_seed(salt)
    limits = (-(2 ** (size - 1)), 2 ** (size - 1))
    found = torch.randint(*limits, shape, generator=generator, dtype=torch.int64, device="cpu")
    if dtype.is_floating_point and not any_bits:  # an exponent in the middle
        found = (found & ~(3 << (size - 3))) | (1 << (size - 3))
    return found.to(integer).view(dtype).to(device())


def make_sides(operator, case, dtype):
    sizes, sides = DATA["sizes"], []
    blocks, rows = sizes["num_blocks"] + 2 * GUARD, case["num_tokens"] + 32 * GUARD
    any_bits = case["clause"] == "C16"
    for number, (heads, width) in enumerate(OPERATORS[operator][0]):
        packed = 2 if case.get("packed") else 1
        cache_buffer = filled(
            (blocks, heads, sizes["block_size"], width * packed), dtype, 2 * number, any_bits
        )
        states_buffer = filled((rows, heads, width * packed), dtype, 2 * number + 1, any_bits)
        cache = cache_buffer[GUARD : blocks - GUARD, ..., :width]
        states = states_buffer[16 * GUARD : rows - 16 * GUARD, ..., :width]
        name = ("key", "value")[number] if len(OPERATORS[operator][0]) > 1 else "cache"
        sides.append(Side(name, states, cache, states_buffer, cache_buffer))
    return sides


def index_arrays(form, index):
    """The index arguments; a kernel that reads past one finds the block behind the cache."""
    found = []
    for values in index:
        if values is None:
            found.append(None)
            continue
        values = torch.tensor(values, dtype=torch.int32, device="cpu")
        if form == "chunks":
            values = values.reshape(-1, 4)
        elif form == "table" and not found and values.ndim == 1:  # no row
            values = values.reshape(0, 1)
        size = values.numel()
        memory = torch.full(
            (size + 64,), DATA["sizes"]["num_blocks"], dtype=torch.int32, device="cpu"
        )
        memory[:size] = values.flatten()
        found.append(memory.to(device())[:size].view(values.shape))
    return found


def call(operator, store, sides, form, index):
    """The operator's call; what it returns as a tuple."""
    states, caches = [side.states for side in sides], [side.cache for side in sides]
    arrays = index_arrays(form, index)
    if operator == "MojoStoreLowrank":
        out = store(caches[0], states[0], *arrays, len(index[0]))
    elif operator == "MojoStorePagedMLAKVCache":
        out = store(*(rows[:, 0] for rows in states), *caches, *arrays)
    elif form == "chunks":
        out = store(*states, *caches, chunk_metadata=arrays[0])
    else:
        out = store(*states, *caches, *arrays)
    return out if isinstance(out, tuple) else (out,)


def judge(side, case):
    """What is not as the case says, in words."""
    after, faults = bits(side.cache_buffer), []
    width, allowed = side.cache.shape[-1], {}
    if not torch.equal(bits(side.states_buffer), side.rows):
        faults.append("the states are changed")
    for token, block, offset in case["stored"]:
        allowed.setdefault((block + GUARD, offset), []).append(token)
    changed = (after != side.before).any(dim=3).any(dim=1)
    for where in sorted({*map(tuple, changed.nonzero().tolist()), *allowed}):
        block, offset = where
        got = after[block, :, offset]
        is_row = (side.rows[..., :width] == got[..., :width]).flatten(1).all(dim=1)
        tokens = (is_row.nonzero()[:, 0] - 16 * GUARD).tolist()
        rest_is_kept = torch.equal(got[..., width:], side.before[block, :, offset][..., width:])
        wanted = allowed.get(where, [])
        if rest_is_kept and set(tokens) & set(wanted):
            continue
        place = f"block {block - GUARD} offset {offset}"
        count = DATA["sizes"]["num_blocks"]
        place += "" if 0 <= block - GUARD < count else " (outside the cache)"
        has = f"has token {tokens[0]}" if tokens else "has bits of no token"
        has = has if bool(changed[where]) else "is not written"
        should = f"must have token {' or '.join(map(str, wanted))}" if wanted else "must be kept"
        faults.append(f"{place} {has}, {should}")
    more = f"; and {len(faults) - 2} more like it" if len(faults) > 2 else ""
    return "; ".join(faults[:2]) + more


def verdict_of(operator, backend_class, case, form, dtype):
    sides = make_sides(operator, case, dtype)
    title = f"{case['clause']} {case['name']} ({form}, {str(dtype).removeprefix('torch.')})"
    promised = case["promised"] and (operator, case["clause"]) not in NOT_PROMISED
    try:
        out = call(operator, backend_class(), sides, form, case[form])
        found = {side.name: judge(side, case) for side in sides}
        if len(found) > 1 and len(set(found.values())) == 1:
            found = {"both sides": found["key"]}
        faults = [f"{name}: {words}" for name, words in found.items() if words]
        if list(map(id, out)) != [id(side.cache) for side in sides]:
            faults.append("what is returned is not the very cache that was given")
        return Verdict(case["clause"], title, promised, False, faults)
    except Exception as error:
        unchanged = all(torch.equal(bits(side.cache_buffer), side.before) for side in sides)
        text = " ".join(str(error).split())[:160]
        words = f"raises {type(error).__name__}: {text}; "
        words += "nothing is written" if unchanged else "after some rows were written"
        refused = unchanged and isinstance(error, NotImplementedError)
        return Verdict(case["clause"], title, promised, refused, [words])


def backends():
    """Each operator of this mojo_opset with each backend that is registered for it."""
    found = []
    for operator in OPERATORS:
        for home in ("mojo_opset", "mojo_opset.experimental"):
            core = getattr(importlib.import_module(home), operator, None)
            if core is not None:
                found += [(operator, name) for name in core._registry._registry]
                break
    return found


def class_of(operator, backend):
    for home in ("mojo_opset", "mojo_opset.experimental"):
        core = getattr(importlib.import_module(home), operator, None)
        if core is not None:
            return core._registry._registry[backend]
    raise AssertionError(operator)


def cases_of(operator, clause):
    forms = OPERATORS[operator][1]
    for case in DATA["cases"]:
        for form in forms:
            if case["clause"] == clause and form in case:
                for dtype in case.get("dtypes", ["bfloat16"]):
                    yield case, form, getattr(torch, dtype)


PARAMETERS = [
    (operator, backend, clause)
    for operator, backend in backends()
    for clause in dict.fromkeys(case["clause"] for case in DATA["cases"])
    if any(cases_of(operator, clause))
]


@pytest.mark.parametrize(("operator", "backend", "clause"), PARAMETERS)
def test_clause(operator, backend, clause, summary):
    backend_class = class_of(operator, backend)
    verdicts = [
        verdict_of(operator, backend_class, case, form, dtype)
        for case, form, dtype in cases_of(operator, clause)
    ]
    summary.verdicts.setdefault((operator, backend), []).extend(verdicts)
    words = [f"{v.title}: {fault}" for v in verdicts for fault in v.faults]
    if all(verdict.refused for verdict in verdicts):
        pytest.skip("; ".join(words))
    if any(v.promised and v.faults and not v.refused for v in verdicts):
        pytest.fail("\n".join(words), pytrace=False)
    if any(v.faults and not v.refused for v in verdicts):
        pytest.xfail("; ".join(words))


@pytest.mark.parametrize("mode", [{}, {"store_mode": 1}], ids=["seven arguments", "store_mode=1"])
def test_the_sides_that_the_kernel_writes(mode, summary):
    """Reports, and fails only where a call without `store_mode` does not write both sides."""
    functions = pytest.importorskip("ixformer.functions", reason="ixformer is not installed")
    kernel = getattr(functions, "paged_store_kv_cache_with_block_table", None)
    if kernel is None:
        pytest.skip("ixformer.functions has no paged_store_kv_cache_with_block_table")
    case = next(case for case in DATA["cases"] if case["clause"] == "C5")
    sides = make_sides("MojoStorePagedKVCache", case, torch.bfloat16)
    key, value = sides
    index = index_arrays("table", case["table"])
    name = "with store_mode=1" if mode else "without store_mode"
    try:
        kernel(key.states, value.states, key.cache, value.cache, *index, **mode)
        said = [
            f"the {side.name} side is "
            + ("kept" if torch.equal(bits(side.cache_buffer), side.before) else "written")
            + (" as specified" if not judge(side, case) else "")
            for side in sides
        ]
    except Exception as error:
        said = [f"raises {type(error).__name__}: {' '.join(str(error).split())[:160]}"]
    summary.kernel.append(f"paged_store_kv_cache_with_block_table {name}: {', '.join(said)}")
    if not mode:
        assert said == [f"the {side.name} side is written as specified" for side in sides]
