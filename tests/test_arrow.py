"""One direction: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("functional_paged", "bridges")
SCRIPTS = ("docs", "examples")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below this one but for those of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


def imported(source: str, package: str = "") -> set[str]:
    """Full names of what the code of a module imports, wherever in it, in `package` if relative.

    Of `from a import b` that is `a.b`, whether `b` is a module or not. What `import_module` is
    given as a string counts too.
    """
    found = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            parts = [*(parents if node.level else ()), *filter(None, [node.module])]
            found |= {".".join([*parts, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            if isinstance(name, ast.Constant):
                found.add(str(name.value))
    return found


def imports_of(path: Path) -> set[str]:
    package = module_name(path.parent / "__init__.py") if path.is_relative_to(ROOT) else ""
    return imported(path.read_text(), package)


IMPORTS = {name: imports_of(path) for name, path in SOURCES.items()}


def inside(name: str, *modules: str) -> bool:
    """Whether a name is one of these modules or in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def wrong(importers: set[str], forbidden: str, *allowed: str) -> set[str]:
    """The imports of something in `forbidden` by a module of `importers` that is not `allowed`."""
    return {
        f"{name} imports {what}"
        for name in importers
        if not inside(name, *allowed)
        for what in IMPORTS[name]
        if inside(what, forbidden)
    }


def of(package: str) -> set[str]:
    return {name for name in SOURCES if inside(name, package)}


def private(names: set[str], package: str) -> set[str]:
    """Which of them are, or are in, a private module right below a package or further down."""
    return {name for name in names if re.match(rf"{package}(\.\w+)*\._", name)}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or not."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            todo += (new := graph[todo.pop()] - seen)
            seen |= new
        return seen

    reached = {name: reach(name) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other]) for name in graph
    }
    return [set(group) for group in groups if group]


def graph_of(package: str) -> dict[str, set[str]]:
    """Which modules of a package each of them imports, in functions too."""
    graph: dict[str, set[str]] = {}
    for name in of(package):
        # The longest prefix that is a module: `a.b.c` is `c` of `a.b`, unless it is a module.
        targets = {w if w in SOURCES else w.rpartition(".")[0] for w in IMPORTS[name]}
        graph[name] = {target for target in targets if target in of(package)}
    return graph


def test_the_core_and_the_kit_do_not_import_bridges() -> None:
    assert wrong(of("functional_paged"), "bridges") == set()


def test_the_core_does_not_import_the_kit() -> None:
    core = of("functional_paged") - of("functional_paged.conformance") - of("functional_paged._cli")
    assert wrong(core, "functional_paged.conformance") == set()


def test_one_module_of_bridges_imports_the_kit() -> None:
    allowed = "bridges.conformance_adapters"
    assert wrong(of("bridges"), "functional_paged.conformance", allowed) == set()
    assert wrong({allowed}, "functional_paged.conformance")
    assert wrong(of("bridges"), allowed) == set()


def test_bridges_never_imports_jax() -> None:
    assert wrong(of("bridges"), "jax") == set()


def test_jax_is_imported_where_it_is_the_subject() -> None:
    allowed = (
        "functional_paged._bench.jax_ways",
        "functional_paged._jax",
        "functional_paged.conformance.adapters.jax",
        "functional_paged.conformance.peers.jax_at_set",
    )
    assert wrong(of("functional_paged"), "jax", *allowed) == set()


def test_bridges_uses_the_core_by_its_doors() -> None:
    for name in of("bridges"):
        assert private(IMPORTS[name], "functional_paged") == set(), name


def test_the_kit_uses_the_core_by_its_doors() -> None:
    for name in of("functional_paged.conformance"):
        own = private(IMPORTS[name], "functional_paged.conformance")
        assert private(IMPORTS[name], "functional_paged") - own == set(), name


@pytest.mark.parametrize(
    "path", [p for folder in SCRIPTS for p in sorted((ROOT / folder).glob("*.py"))], ids=str
)
def test_scripts_use_no_private_module(path: Path) -> None:
    names = imported(path.read_text())
    assert private(names, "functional_paged") | private(names, "bridges") == set()


def test_no_test_imports_another() -> None:
    tests = {path: imported(path.read_text(), "tests") for path in (ROOT / "tests").rglob("*.py")}
    assert "tests.helpers.clauses_of" in tests[Path(__file__).with_name("conftest.py")]
    found = {name for names in tests.values() for name in names}
    assert {name for name in found if re.match(r"(tests\.)?test_", name)} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports(package: str) -> None:
    graph = graph_of(package)
    if package == "functional_paged":
        # A method of the explanation, for those who hold one, loads what draws it.
        graph["functional_paged._explain.model"].remove("functional_paged._explain.svg")
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import bridges.mojo", {"bridges.mojo"}),
        ("from bridges import mojo as m", {"bridges.mojo"}),
        ("def f():\n    from .. import bridges", {"a.bridges"}),
        ("from ._x import y", {"a.b._x.y"}),
        ("try:\n    import jax\nexcept ImportError:\n    pass", {"jax"}),
        ("import importlib\nimportlib.import_module('bridges')", {"importlib", "bridges"}),
        ("if TYPE_CHECKING:\n    import jax\nelse:\n    import numpy", set()),
        ("'import jax'", set()),
    ],
)
def test_imports_are_found(source: str, found: set[str]) -> None:
    assert imported(source, "a.b") == found


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d", "a"}}
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["d"]]
