"""Index specs in JSON files, for the command line."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from .._sizes import INT32_MAX
from .._spec import FORMS, IndexSpec
from .._static_checks import INDEX_ARRAYS

_SIZES = ("num_blocks", "block_size", "num_tokens")
_FORMS = {form.form: form for form in FORMS}


class JsonSpecError(ValueError):
    """A JSON text that is no index spec; the text names the field and its value."""


class SizedSpec(NamedTuple):
    """An index spec of NumPy arrays, with the arguments of `explain` that it is relative to."""

    index_spec: IndexSpec
    cache_shape: tuple[int, int, int, int]
    num_tokens: int


def parse_spec(text: str) -> SizedSpec:
    """Read an index spec from a JSON object of its form, its fields and the three sizes.

    `cu_q_lens` may be left out or null: decode. Arrays are int32; `slots` int64 if one needs it.
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
    names = [field.name for field in fields(_FORMS[form])]
    known = (*names, *_SIZES)
    for name in (*known, *read):
        if name not in known:
            raise JsonSpecError(f"{name} is no field of form {form}, which has {', '.join(known)}")
        if name not in read and name != "cu_q_lens":
            raise JsonSpecError(f"{name} is missing; form {form} needs it")
    num_blocks, block_size, num_tokens = (_size(name, read[name]) for name in _SIZES)
    optional = {"cu_q_lens"} if read.get("cu_q_lens") is None else set()
    arrays = {name: _array(name, read[name]) for name in names if name not in optional}
    # One head of one element: an index spec does not depend on them.
    return SizedSpec(_FORMS[form](**arrays), (num_blocks, 1, block_size, 1), num_tokens)


def _size(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT32_MAX:
        raise JsonSpecError(f"{name} must be an integer in 0..2**31 - 1, got {_shown(value)}")
    return value


def _array(name: str, value: Any) -> np.ndarray:
    ndim, dtypes = INDEX_ARRAYS[name]
    lists = value if ndim == 2 and isinstance(value, list) else [value]
    if not all(isinstance(entries, list) for entries in lists):
        what = "list of lists of" if ndim == 2 else "list of"
        raise JsonSpecError(f"{name} must be a {what} integers, got {_shown(value)}")
    if len({len(entries) for entries in lists}) > 1:
        raise JsonSpecError(f"{name} must have rows of one length, got {_shown(value)}")
    dtype = np.iinfo(dtypes[-1])
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
