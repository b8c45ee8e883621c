"""Mutation testing: one operator or number of a module changed at a time, which tests must notice.

`make mutants` runs it; pytest does not. `mutants.toml` has the tests of each module, and the
changes that alter nothing, each with the reason. Any other change that the tests pass is a
failure, and so is an entry whose change they notice or that no longer exists.

The changes are cosmic-ray's, made in a copy of the tree. Frameworks are loaded once, and each
mutant is tested in a fork.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]

# One replacement an operator. What cosmic-ray has more of is noticed sooner.
OPERATORS = re.compile(
    r"""core/(NumberReplacer|AddNot|ZeroIterationForLoop
    |Replace(AndWithOr|OrWithAnd|TrueWithFalse|FalseWithTrue|BreakWithContinue|ContinueWithBreak)
    |ReplaceUnaryOperator_Delete_(Not|Invert|USub)
    |ReplaceComparisonOperator_(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is)
    |ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Add|Mul_FloorDiv|FloorDiv_Mod|Mod_FloorDiv
    |Pow_Mul|BitAnd_BitOr|BitOr_BitAnd))""",
    re.VERBOSE,
)


def mutants(source: str) -> Iterator[tuple[str, str | None]]:
    """Yield the changed line of each mutant, and the mutant; `None` for one that is not tried.

    Not tried are annotations, the `strict` of a zip, which is an assertion, and what is no Python.
    """
    before, seen = source.splitlines(), Counter[str]()
    apart = [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        for node in _not_tried(ast.parse(source))
    ]
    for name in filter(OPERATORS.fullmatch, operator_names()):
        operator = get_operator(name)()
        nodes = ast_nodes(get_ast(source))
        places = [place for node in nodes for place, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            mutant = mutate_code(source, operator, occurrence)
            after = mutant.splitlines()
            first = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
            same = next(i for i in range(len(after)) if after[-1 - i] != before[-1 - i])
            line = " ".join(" ".join(after[first : len(after) - same]).split())
            seen[line] += 1
            line += f" #{seen[line]}" if seen[line] > 1 else ""
            try:
                ast.parse(mutant)
            except SyntaxError:
                mutant = None
            yield line, None if any(a <= place < b for a, b in apart) else mutant


def _not_tried(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(annotation=ast.Name(id="TypeAlias"), value=ast.expr() as alias):
                yield alias
            case ast.keyword(arg="strict", value=value):
                yield value
            case ast.arg(annotation=ast.expr() as annotation):
                yield annotation
            case ast.AnnAssign(annotation=annotation):
                yield annotation
            case ast.FunctionDef(returns=ast.expr() as annotation):
                yield annotation


def passes(tests: list[str], limit: float, keep_bytecode: bool = False) -> bool:
    """Whether all tests pass within `limit` seconds, in a fork and a process group of its own.

    Bytecode is kept of the unchanged module alone: a cache takes two mutants of one second for one.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "" if keep_bytecode else "1"
        sys.dont_write_bytecode = not keep_bytecode
        import pytest

        quiet = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
        os._exit(pytest.main([*quiet, *tests]))
    end = time.monotonic() + limit
    done, status = 0, 1
    while not done and time.monotonic() < end:
        time.sleep(0.02)
        done, status = os.waitpid(child, os.WNOHANG)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        os.waitpid(child, 0)
    return bool(done) and status == 0


def try_module(name: str, tests: list[str], known: dict[str, str], every: int) -> bool:
    """Try the mutants of a module; whether the survivors are those that `known` has."""
    path, began = Path(name), time.monotonic()
    source = path.read_text()
    count = Counter[str]()
    if not passes(tests, 1200, keep_bytecode=True):
        print(f"{name}: its tests fail as it is")
        return False
    limit = 20 + 4 * (time.monotonic() - began)
    unseen = []
    for number, (line, mutant) in enumerate(mutants(source)):
        if number % every:
            continue
        if mutant is None:
            count["not tried"] += 1
            continue
        path.write_text(mutant)
        if passes(tests, limit):
            unseen.append(line)
            if line not in known:
                print(f"  survived: {line}", flush=True)
        count["tried"] += 1
    path.write_text(source)
    new = [line for line in unseen if line not in known]
    stale = [line for line in known if line not in unseen] if every == 1 else []
    for line in stale:
        print(f"  noticed, or no longer there: {line}")
    print(
        f"{name}: {count['tried']} mutants, {count['tried'] - len(unseen)} killed, "
        f"{len(unseen) - len(new)} change nothing, {len(new)} survived; {count['not tried']} not "
        f"tried; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return not new and not stale


def main() -> None:
    """Try the modules named, all by default."""
    parser = argparse.ArgumentParser(description="Change one thing at a time; tests must notice.")
    parser.add_argument("modules", nargs="*", help="paths, as in mutants.toml; all by default")
    parser.add_argument("--every", type=int, default=1, help="try every so many mutants")
    chosen = parser.parse_args()
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for loaded in ("array_api_compat.numpy", "beartype", "jax", "jaxtyping", "pytest", "torch"):
        importlib.import_module(loaded)
    from hypothesis import Phase, settings

    phases = Phase.explicit, Phase.reuse, Phase.generate  # nobody reads a shrunk example
    settings.register_profile("mutants", phases=phases)
    settings.load_profile("mutants")
    gc.freeze()  # no fork collects what all share

    with tempfile.TemporaryDirectory() as copy:
        for file in files:
            target = Path(copy, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, target)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = copy
        sys.path[0] = copy
        right = [
            try_module(name, table[name]["tests"], table[name].get("equivalent", {}), chosen.every)
            for name in chosen.modules or table
        ]
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
