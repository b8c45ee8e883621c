"""Index specs in JSON files, for the command line."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from .._sizes import INT32_MAX
from .._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping

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


class SizedSpec(NamedTuple):
    """An index spec of NumPy arrays, with the arguments of `explain` that it is relative to."""

    index_spec: IndexSpec
    cache_shape: tuple[int, int, int, int]
    num_tokens: int


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
    for name in known:
        if name not in read and name not in _OPTIONAL:
            raise JsonSpecError(f"{name} is missing; form {form} needs it")
    given = [name for name in axes if name not in _OPTIONAL or read.get(name) is not None]
    arrays = {name: _array(name, read[name], axes[name]) for name in given}
    num_blocks, block_size, num_tokens = (_size(name, read[name]) for name in _SIZES)
    # One head of one element: an index spec does not depend on them.
    return SizedSpec(_FORMS[form](**arrays), (num_blocks, 1, block_size, 1), num_tokens)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers keep the last of two fields of one name, and nobody would see the first.
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonSpecError(f"{twice} must be given once, got it {names.count(twice)} times")
    return fields


def _size(name: str, value: Any) -> int:
    if not _is_integer(value) or not 0 <= value <= INT32_MAX:
        raise JsonSpecError(f"{name} must be an integer in 0..2**31 - 1, got {_shown(value)}")
    return value


def _array(name: str, value: Any, ndim: int) -> np.ndarray:
    _check_entries(name, value, ndim, np.iinfo(np.int64 if name == "slots" else np.int32))
    shape = (len(value),)
    if ndim == 2:
        # No rows say nothing of the columns; a plan has 4 of them.
        columns = len(value[0]) if value else 4 * (name == "chunks")
        shape = (len(value), columns)
        for row, entries in enumerate(value):
            if len(entries) != columns:
                raise JsonSpecError(
                    f"{name}[{row}] must have as many entries as {name}[0] = {columns}, "
                    f"got {len(entries)}"
                )
    wide = np.array(value, np.int64).reshape(shape)
    narrow = wide.astype(np.int32)
    return narrow if np.array_equal(narrow, wide) else wide


def _check_entries(
    name: str, value: Any, ndim: int, dtype: np.iinfo, index: tuple[int, ...] = ()
) -> None:
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    if len(index) == ndim:
        if not _is_integer(value) or not dtype.min <= value <= dtype.max:
            raise JsonSpecError(f"{where} must be an {dtype.dtype} integer, got {_shown(value)}")
        return
    if not isinstance(value, list):
        what = "list of lists of" if len(index) + 2 == ndim else "list of"
        raise JsonSpecError(f"{where} must be a {what} integers, got {_shown(value)}")
    for at, entry in enumerate(value):
        _check_entries(name, entry, ndim, dtype, (*index, at))


def _is_integer(value: Any) -> bool:
    # bool is an int to Python, and true is no block id.
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
