"""Index specs in JSON files, for the command line."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from .._sizes import INT32_MAX
from .._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping

_SIZES = ("num_blocks", "block_size", "num_tokens")
_FORMS = {form.form: form for form in (BlockTable, ChunkPlan, SlotMapping)}
# Fields of each form with their axes; `cu_q_lens` may be left out or null.
_FIELDS = {
    "block_table": {"block_table": 2, "context_kv_lens": 1, "cu_q_lens": 1},
    "chunks": {"chunks": 2},
    "slots": {"slots": 1},
}


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
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JsonSpecError(f"must be JSON: {error}") from None
    if not isinstance(read, dict):
        raise JsonSpecError(f"must be a JSON object, got {_shown(read)}")
    form = read.pop("form", None)
    if not isinstance(form, str) or form not in _FORMS:
        raise JsonSpecError(f"form must be one of {', '.join(_FORMS)}, got {_shown(form)}")
    known = (*_FIELDS[form], *_SIZES)
    for name in read:
        if name not in known:
            raise JsonSpecError(f"{name} is no field of form {form}, which has {', '.join(known)}")
    for name in known:
        if name not in read and name != "cu_q_lens":
            raise JsonSpecError(f"{name} is missing; form {form} needs it")
    num_blocks, block_size, num_tokens = (_size(name, read.pop(name)) for name in _SIZES)
    arrays = {
        name: _array(name, value, _FIELDS[form][name])
        for name, value in read.items()
        if value is not None or name != "cu_q_lens"
    }
    # One head of one element: an index spec does not depend on them.
    return SizedSpec(_FORMS[form](**arrays), (num_blocks, 1, block_size, 1), num_tokens)


def _size(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT32_MAX:
        raise JsonSpecError(f"{name} must be an integer in 0..2**31 - 1, got {_shown(value)}")
    return value


def _array(name: str, value: Any, ndim: int) -> np.ndarray:
    lists = value if ndim == 2 and isinstance(value, list) else [value]
    if not all(isinstance(entries, list) for entries in lists):
        what = "list of lists of" if ndim == 2 else "list of"
        raise JsonSpecError(f"{name} must be a {what} integers, got {_shown(value)}")
    if len({len(entries) for entries in lists}) > 1:
        raise JsonSpecError(f"{name} must have rows of one length, got {_shown(value)}")
    dtype = np.iinfo(np.int64 if name == "slots" else np.int32)
    for entry in (entry for entries in lists for entry in entries):
        # Not of a subclass: true is no block id.
        if type(entry) is not int or not dtype.min <= entry <= dtype.max:
            raise JsonSpecError(f"{name} must have {dtype.dtype} integers, got {_shown(entry)}")
    array = np.array(value, np.int64)
    if ndim == 2:
        # No rows say nothing of the columns; a plan has 4 of them.
        array = array.reshape(len(value), len(value[0]) if value else 4 * (name == "chunks"))
    narrow = array.astype(np.int32)
    return narrow if np.array_equal(narrow, array) else array


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
