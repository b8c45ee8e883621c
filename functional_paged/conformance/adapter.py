"""Adapters, the way in which a backend is called, and the search for one by name."""

from __future__ import annotations

import importlib
import operator
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np

from functional_paged import IndexSpec
from functional_paged.reference import Cache, States

from .cases.case import Case
from .cases.guarded_cache import Order, Shape
from .cases.suite import every_case
from .run.words import in_words


class Adapter(Protocol):
    """The calls to a backend: NumPy in, NumPy out; bfloat16 and float8 as `ml_dtypes`.

    These members are required; `FullAdapter` has those that some cases need, and `Traits` what an
    adapter may say of its kernel.

    Attributes:
      name: what reports and ledgers call the backend.
    """

    name: str

    def unsupported(self, case: Case) -> str | None:
        """The reason why this backend cannot be given a case, or `None` if it can."""
        ...

    def store(self, cache: Cache, states: States, index_spec: IndexSpec) -> Cache:
        """Store in place and return `cache` itself, or leave it alone and return a new one.

        A new one may be any array with memory of its own that `numpy.asarray` takes, one that is
        computed later too: states, index spec and `cache` are overwritten before it is read (C17).
        """
        ...


class FullAdapter(Adapter, Protocol):
    """An adapter with all that a case may need; without a method, such a case is not run."""

    def store_pair(
        self,
        key_cache: Cache,
        value_cache: Cache,
        keys: States,
        values: States,
        index_spec: IndexSpec,
    ) -> tuple[Cache, Cache]:
        """As `store`, which it replaces, for a kernel that stores both sides: each is judged."""
        ...

    def info(self) -> dict[str, str]:
        """Versions and device by name, for the report. No case needs it."""
        ...

    def load(self, cache: Cache, index_spec: IndexSpec, num_tokens: int) -> States:
        """The row at each token's slot, zeros where it is not stored: what undoes the store."""
        ...

    def transfer(
        self, dst: Cache, dst_spec: IndexSpec, src: Cache, src_spec: IndexSpec, num_tokens: int
    ) -> Cache:
        """As a `store` into `dst` of what `load` reads from `src`, which may be `dst` itself."""
        ...

    def check(self, index_spec: IndexSpec, cache_shape: Shape, num_tokens: int) -> None:
        """Raise for a spec that is invalid by value."""
        ...

    def vjp(
        self, cache: Cache, states: States, index_spec: IndexSpec, cotangent: Cache
    ) -> tuple[Cache, States]:
        """The cotangents of cache and states, for that of the stored cache (C22)."""
        ...

    def encode(
        self, states: States, scale: np.ndarray | None, codec: str
    ) -> tuple[States, np.ndarray]:
        """Payload and scale of states by a codec of `functional_paged.codecs`, in lower case.

        A static scale is given, as wide as the codec's; an absmax codec gets `None`.
        """
        ...

    def decode(self, payload: States, scale: np.ndarray, codec: str, dtype: np.dtype) -> States:
        """States of a payload in a dtype."""
        ...

    def store_apart(self, cache: Cache, states: States, index_spec: IndexSpec) -> object:
        """Store with states on another device than the cache, and raise (C3)."""
        ...


@dataclass(frozen=True)
class Traits:
    """What an adapter may say of its kernel, each in an attribute of that name.

    Attributes:
      isolation: `"fork"`: each case runs in a fork of a process that has loaded the adapter and
        called nothing. `"process"`, for a framework that takes long to start or that a fork breaks
        (JAX, a GPU): one process for many cases, a fresh one after a case that raised an error of
        the kernel's own, crashed, or wrote around the cache.
      not_promised: what a caller must see to, in a line each, by clause, or by a glob of case ids
        where a kernel promises a part of a clause. All else is promised.
      slot_dtypes: dtypes of the slots that it takes.
      order: `"NHD"`: every cache has the shape `(num_blocks, block_size, kv_heads, head_dim)`.
      strict: an error must name its clause, and a store does not refuse what is invalid by value
        but leaves it out, as `docs/spec.md` says. Else any error with the memory untouched will do.
    """

    isolation: Literal["fork", "process"] = "fork"
    not_promised: Mapping[str, str] = field(default_factory=dict)
    slot_dtypes: tuple[str, ...] = ("int32", "int64")
    order: Order = "HND"
    strict: bool = False

    def left_to_the_caller(self, case: Case) -> str | None:
        """What a caller must see to for a case to go well; `None` where the kernel promises it."""
        found = (line for key, line in self.not_promised.items() if _speaks_of(key, case))
        return next(found, None)


def _speaks_of(key: str, case: Case) -> bool:
    return key in case.clauses or fnmatchcase(case.id, key)


def traits_of(adapter: Adapter) -> Traits:
    """What an adapter says of its kernel, with the defaults for all else."""
    said = {f.name: getattr(adapter, f.name) for f in fields(Traits) if hasattr(adapter, f.name)}
    return Traits(**said)


class CaseUnsupported(Exception):
    """Raised by an adapter that finds only on trying that it cannot run a case; says why."""


class NoSuchMember(Exception):
    """A method that a case needs and an adapter does not have."""


class BackendNotFound(LookupError):
    """A backend's adapter that does not exist or cannot load; the text says why."""


METHODS = [name for name in dir(FullAdapter) if not name.startswith("_")]
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "isolation": ("fork", "process"),
    "slot_dtypes": (("int32",), ("int64",), ("int32", "int64")),
    "order": ("HND", "NHD"),
    "strict": (True, False),
}

ENTRY_POINTS = "functional_paged.adapters"
"""The group of entry points that names adapters: ours, and those of any installed package."""


def find_adapter(name: str) -> Adapter:
    """The adapter of a backend by its entry point, or the one at `package.module:attribute`.

    A file may stand for the module, `./my_adapter.py:attribute`; its folder is then searched for
    what it imports. The attribute may also be a class or a function that makes the adapter.

    Raises:
      BackendNotFound: no such name, module or attribute, one name for two of them, whatever the
        module or the adapter's constructor raises, or a member that is missing or wrong.

    Example:
      >>> find_adapter("reference").name
      'reference'
    """
    module, _, attribute = _path_of(name).rpartition(":")
    try:
        found = operator.attrgetter(attribute)(_import(module))
        is_maker = isinstance(found, type) or (
            callable(found) and not hasattr(found, "unsupported")
        )
        adapter: Any = found() if is_maker else found
        wrong = _wrong_member(adapter)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            hint = f" in sys.path; a file is named by its path, ./{module}.py:{attribute}"
        raise BackendNotFound(f"backend {name!r} cannot load: {in_words(error)}{hint}") from error
    if wrong is not None:
        raise BackendNotFound(f"the adapter {name!r} must have {wrong}")
    return adapter


def _path_of(name: str) -> str:
    """The `module:attribute` that a backend's name stands for."""
    named = entry_points(group=ENTRY_POINTS)
    paths = sorted({point.value for point in named.select(name=name)})
    if len(paths) > 1:
        raise BackendNotFound(f"backend {name!r} is registered twice: {' and '.join(paths)}")
    path = paths[0] if paths else name
    if not all(path.rpartition(":")):
        raise BackendNotFound(
            f"backend must be one of {', '.join(sorted(named.names))} or "
            f"package.module:attribute, got {name!r}"
        )
    return path


def _import(module: str) -> ModuleType:
    if os.sep not in module and not module.endswith(".py"):
        return importlib.import_module(module)
    file = Path(module).with_suffix(".py").resolve(strict=True)
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    return importlib.import_module(file.stem)


def _wrong_member(adapter: Any) -> str | None:
    """The words for what a member must be, for the first that is missing or something else."""
    stores = "store_pair" if hasattr(adapter, "store_pair") else "store"
    for member in ("name", "unsupported", stores):
        if not hasattr(adapter, member):
            return f"a member {member!r}"
    if not isinstance(adapter.name, str) or not adapter.name:
        return f"a str for its name, got {adapter.name!r}"
    for member in METHODS:
        value = getattr(adapter, member, None)
        if value is not None and not callable(value):
            return f"a method {member!r}, got {value!r}"
    traits = traits_of(adapter)
    for trait, allowed in _ALLOWED.items():
        value = getattr(traits, trait)
        if value not in allowed:
            return f"for {trait!r} one of {', '.join(map(repr, allowed))}, got {value!r}"
    for key, line in traits.not_promised.items():
        if not any(_speaks_of(key, case) for case in every_case()):
            return f"clauses or globs of case ids in 'not_promised', got {key!r}"
        if not line.strip():
            return f"in 'not_promised' what a caller must see to for {key!r}, got {line!r}"
    return None
