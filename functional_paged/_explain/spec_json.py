"""Index specs in JSON files, for the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import INT32_MAX
from .._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping

INT64_MAX = 2**63 - 1

_SIZES = ("num_blocks", "block_size", "num_tokens")
# Fields of each form with their axes; those of `_OPTIONAL` may be left out or null.
_FIELDS = {
    "block_table": {"block_table": 2, "context_kv_lens": 1, "cu_q_lens": 1},
    "chunks": {"chunks": 2},
    "slots": {"slots": 1},
}
_OPTIONAL = {"cu_q_lens"}
_FORMS = {form.form: form for form in (BlockTable, ChunkPlan, SlotMapping)}


class JsonSpecError(ValueError):
    """A JSON text that is no index spec; the text names the field and its value."""


@dataclass(frozen=True)
class SizedSpec:
    """An index spec with the sizes that it is relative to.

    Attributes:
      index_spec: any of the three forms, of NumPy arrays.
      num_blocks: of the cache.
      block_size: of the cache.
      num_tokens: rows of `states`.
    """

    index_spec: IndexSpec
    num_blocks: int
    block_size: int
    num_tokens: int

    @property
    def cache_shape(self) -> tuple[int, int, int, int]:
        """The shape of a cache of these sizes, with one head of one element."""
        return (self.num_blocks, 1, self.block_size, 1)


def parse_spec(text: str) -> SizedSpec:
    """Read an index spec from JSON.

    Args:
      text: an object with `form` (`block_table`, `chunks` or `slots`), the fields of that form,
        `num_blocks`, `block_size` and `num_tokens`. `cu_q_lens` may be left out or null: decode.

    Returns:
      The spec, of int32 arrays; `slots` are int64 if one of them needs it.

    Raises:
      JsonSpecError: what is not such an object, with the field, its value and what must hold.

    Example:
      >>> sizes = '"num_blocks": 6, "block_size": 2, "num_tokens": 2'
      >>> parse_spec('{"form": "slots", "slots": [9, -1], ' + sizes + "}").index_spec.slots
      array([ 9, -1], dtype=int32)
    """
    try:
        return _sized_spec(json.loads(text, object_pairs_hook=_without_duplicates))
    except RecursionError:
        raise JsonSpecError("must not be nested that deeply") from None
    except JsonSpecError:
        raise
    except ValueError as error:
        raise JsonSpecError(f"must be JSON: {error}") from None


def _sized_spec(read: Any) -> SizedSpec:
    if not isinstance(read, dict):
        raise JsonSpecError(f"must be a JSON object, got {_shown(read)}")
    form = read.get("form")
    if not isinstance(form, str) or form not in _FIELDS:
        raise JsonSpecError(f"form must be one of {', '.join(_FIELDS)}, got {_shown(form)}")
    axes = _FIELDS[form]
    known = ("form", *axes, *_SIZES)
    for name in read:
        if name not in known:
            raise JsonSpecError(f"{name} is no field of form {form}, which has {', '.join(known)}")
    arrays = {}
    for name, ndim in axes.items():
        if name in _OPTIONAL and read.get(name) is None:
            continue
        arrays[name] = _array(name, _required(read, name, form), ndim)
    sizes = {name: _size(name, _required(read, name, form)) for name in _SIZES}
    return SizedSpec(_FORMS[form](**arrays), **sizes)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers keep the last of two fields of one name, and nobody would see the first.
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonSpecError(f"{twice} must be given once, got it {names.count(twice)} times")
    return fields


def _required(read: dict[str, Any], name: str, form: str) -> Any:
    if name not in read:
        raise JsonSpecError(f"{name} is missing; form {form} needs it")
    return read[name]


def _size(name: str, value: Any) -> int:
    if not _is_integer(value) or not 0 <= value <= INT32_MAX:
        raise JsonSpecError(f"{name} must be an integer in 0..2**31 - 1, got {_shown(value)}")
    return value


def _array(name: str, value: Any, ndim: int) -> np.ndarray:
    most = INT64_MAX if name == "slots" else INT32_MAX
    if ndim == 1:
        _check_integers(name, value, most)
        wide = any(not -INT32_MAX - 1 <= number <= INT32_MAX for number in value)
        return np.array(value, np.int64 if wide else np.int32)
    if not isinstance(value, list):
        raise JsonSpecError(f"{name} must be a list of lists of integers, got {_shown(value)}")
    for row, entries in enumerate(value):
        _check_integers(f"{name}[{row}]", entries, most)
        if len(entries) != len(value[0]):
            raise JsonSpecError(
                f"{name}[{row}] must have as many entries as {name}[0] = {len(value[0])}, "
                f"got {len(entries)}"
            )
    # No rows say nothing of the columns; a plan has 4 of them.
    columns = len(value[0]) if value else 4 * (name == "chunks")
    return np.array(value, np.int32).reshape(len(value), columns)


def _check_integers(name: str, value: Any, most: int) -> None:
    if not isinstance(value, list):
        raise JsonSpecError(f"{name} must be a list of integers, got {_shown(value)}")
    for index, number in enumerate(value):
        if not _is_integer(number) or not -most - 1 <= number <= most:
            kind = "int32" if most == INT32_MAX else "int64"
            where = f"{name[:-1]}, {index}]" if name.endswith("]") else f"{name}[{index}]"
            raise JsonSpecError(f"{where} must be an {kind} integer, got {_shown(number)}")


def _is_integer(value: Any) -> bool:
    # bool is an int to Python, and true is no block id.
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
