"""A transformers `Cache` whose keys and values lie in paged caches that many sequences share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch

from functional_paged import PAD, BlockTable, SlotMapping, to_slots
from functional_paged.internal import Integer, Shaped

from ._backend import StorePlan
from ._fit import check_axes
from ._load import load_single, transfer_
from ._plan import plan
from ._store import store_single_
from .blocks import BlockAllocator, Row

try:
    from transformers import BatchEncoding, DynamicCache, PreTrainedConfig
    from transformers import cache_utils as stock
except ImportError as error:
    raise ImportError(
        "bridges.transformers needs transformers: pip install 'functional-paged[torch,demo]'"
    ) from error


class PagedLayer(stock.CacheLayerMixin):
    """One layer's `keys` and `values`, each `(num_blocks, kv_heads, block_size, head_dim)`."""

    keys: Any
    values: Any

    def __init__(self, paged: PagedCache) -> None:
        super().__init__()
        self.paged = paged

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the caches, of zeros, for states such as these."""
        blocks = self.paged.allocator
        self.keys, self.values = (
            states.new_zeros(blocks.num_blocks, states.shape[1], blocks.block_size, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> Any:
        """Store the new columns; return all columns so far, 0 where there is no token."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        store, load = self.paged.plans(self.keys)
        caches, padded = (self.keys, self.values), (key_states, value_states)
        store_single_(caches, tuple(p.transpose(1, 2).flatten(0, 1) for p in padded), store)
        rows, shape = load_single(caches, load), self.paged.all_slots.shape
        return tuple(r.unflatten(0, shape).transpose(1, 2) for r in rows)

    def get_seq_length(self) -> int:
        """Return the columns before this pass: what attention masks are made from."""
        return self.paged.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns that attention will see, and the first one's number."""
        return self.paged.columns + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: rows are bound by the free blocks, not by columns."""
        return -1


class PagedCache(stock.Cache):
    """Keys and values of all layers, in blocks that `allocator` gives to rows.

    A forward pass has a padded batch, whose *columns* are those of the attention mask; only tokens
    are stored. The batch is that of `step`, in a loop of your own whose rows come and go, or that
    of `begin`, for `model.generate(..., past_key_values=cache)`. Beams share blocks. Layers with a
    sliding window keep all tokens; their mask does the rest.

    Attributes:
      allocator: the rows and their blocks; add, fork and release rows there.
      rows: those of the batch, in order.
      all_slots: the slot of each column, `PAD` where there is no token. int64[batch, columns]
      new_slots: the same of the last pass's columns, where all but new tokens have `PAD`.

    Example:
      >>> from transformers import LlamaConfig, LlamaForCausalLM
      >>> config = LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
      >>> model, cache = LlamaForCausalLM(config), PagedCache(config, num_blocks=8, block_size=2)
      >>> row = cache.allocator.add([1, 2, 3])
      >>> with torch.no_grad():
      ...     logits = model(**cache.step({row: [1, 2, 3]}), past_key_values=cache).logits[:, -1]
      >>> row.length, row.blocks
      (3, [0, 1])
    """

    layers: list[PagedLayer]  # type: ignore[assignment]

    def __init__(
        self, config: PreTrainedConfig, *, num_blocks: SupportsIndex, block_size: SupportsIndex
    ) -> None:
        """Make a cache for the model of a config; each layer has two of `num_blocks`.

        Raises:
          SpecError: C1, sizes that a cache cannot have.
          ValueError: a layer of the model keeps anything but a key and a value a token.
        """
        layers = DynamicCache(config=config).layers
        for kind in map(type, layers):
            if kind not in (stock.DynamicLayer, stock.DynamicSlidingWindowLayer):
                what = "layers must keep a key and a value a token"
                raise ValueError(f"{what}, got one that needs a {kind.__name__}")
        self.allocator = BlockAllocator(num_blocks, block_size)
        super().__init__(layers=[PagedLayer(self) for _ in layers])
        self.reset()

    def reset(self) -> None:
        """Release all rows. The caches keep what they hold, which is nobody's."""
        self.begin(torch.zeros(0, 0))

    def begin(self, attention_mask: Shaped[torch.Tensor, "batch columns"]) -> None:
        """Release all rows and begin a batch of prompts, padded on any side, for `model.generate`.

        Args:
          attention_mask: the prompts', a row a beam. Columns after its last are tokens.
        """
        check_axes(("batch", "columns"), attention_mask=attention_mask)
        for row in list(self.allocator.rows):
            self.allocator.release(row)
        self._mask = attention_mask.bool().numpy(force=True)
        self.rows = [self.allocator.add() for _ in self._mask]
        self.all_slots: np.ndarray = np.zeros((len(self.rows), 0), np.int64)
        self.columns, self._is_pending = 0, False

    def step(self, tokens: Mapping[Row, Sequence[int]]) -> BatchEncoding:
        """Begin a forward pass of these rows: give them blocks for their next tokens.

        Args:
          tokens: ids of each row's next tokens: a prompt, a part of it, or the token after it.

        Returns:
          The model's input_ids, attention_mask and position_ids, on the CPU, padded on the left:
          each row's last token is in the last column.

        Raises:
          OutOfBlocks: free blocks are too few.
          ValueError: no row, a released one, one without a token, or with other tokens than it was
            added with. Nothing has changed in either case.
        """
        for row, new in tokens.items():
            known = row.tokens[row.length : row.length + len(new)]
            if not new or known != tuple(new)[: len(known)]:
                told = f"those it was added with, {list(known)}" if known else "at least one"
                raise ValueError(f"tokens of a row must be {told}, got {list(new)}")
        if not tokens:
            raise ValueError("tokens must be of at least one row, got none")
        ids = np.concatenate(list(tokens.values()))
        if ids.dtype.kind not in "iu" or ids.ndim > 1:
            raise ValueError(f"tokens must be integers, got {ids.dtype} of {ids.ndim} axes")
        counts = np.array([len(new) for new in tokens.values()])
        is_token, is_new = (
            np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
            for lengths in (counts + [row.length for row in tokens], counts)
        )
        self._place(list(tokens), is_token, is_new)
        self._mask = is_token
        input_ids = np.zeros(is_new.shape, np.int64)
        input_ids[is_new] = ids
        positions = (is_token.cumsum(axis=1) - 1).clip(0)[:, self.columns :]
        arrays = (input_ids, is_token.astype(np.int64), positions)
        names = ("input_ids", "attention_mask", "position_ids")
        return BatchEncoding(dict(zip(names, map(torch.from_numpy, arrays), strict=True)))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> Any:
        """Store a layer's new columns and return all of them; the last layer ends the pass.

        Raises:
          OutOfBlocks: free blocks are too few, where `step` has not said so before.
          ValueError: the states are not of the batch.
          SpecError: as `store_single_`. Nothing of the layer is written in any case.
        """
        batch, _, columns, _ = key_states.shape
        if not self._is_pending and not self.rows:
            self.begin(torch.ones(batch, columns))
        expected = self.new_slots.shape if self._is_pending else (len(self.rows), columns)
        if (batch, columns) != expected:
            raise ValueError(f"states must have (batch, columns) {expected}, got {batch, columns}")
        if not self._is_pending:
            is_new = np.ones((batch, columns), bool)
            told = self._mask[:, self.columns : self.columns + columns]
            is_new[:, : told.shape[1]] = told
            self._place(self.rows, np.concatenate([self.all_slots >= 0, is_new], axis=1), is_new)
        read = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == len(self.layers) - 1:
            self.allocator.append(self._counts)
            self.columns, self._is_pending = self.all_slots.shape[1], False
        return read

    def _place(self, rows: list[Row], is_token: np.ndarray, is_new: np.ndarray) -> None:
        """Begin a pass: a slot for each token, of which the last columns have the new ones."""
        counts = dict(zip(rows, is_new.sum(axis=1).tolist(), strict=True))
        copies = self.allocator.reserve(counts)  # the last that may refuse
        if copies:
            self._copy(np.array(copies, np.int32))
        self.rows, self._counts, self._is_pending = rows, counts, True
        self.columns = is_token.shape[1] - is_new.shape[1]
        self.all_slots = np.full(is_token.shape, PAD, np.int64)
        self.all_slots[is_token] = self._slots(self.allocator.table(rows), is_token.sum(axis=1))
        self.new_slots = np.where(is_new, self.all_slots[:, self.columns :], PAD)
        self._plans: dict[torch.device, list[StorePlan]] = {}

    def _slots(self, block_table: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The slots of rows of these lengths from their first token on, row after row."""
        cu_q_lens = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        spec = BlockTable(block_table, np.zeros(len(lengths), np.int32), cu_q_lens)
        shape = (self.allocator.num_blocks, 1, self.allocator.block_size, 1)
        return to_slots(spec, cache_shape=shape, num_tokens=cu_q_lens[-1]).slots

    def _copy(self, blocks: np.ndarray) -> None:
        """Copy blocks in every cache, each row of `blocks` from one to another."""
        lengths = np.full(len(blocks), self.allocator.block_size)
        old, new = (self._slots(blocks[:, [side]], lengths) for side in (0, 1))
        for layer in self.layers:
            caches, device = (layer.keys, layer.values), layer.keys.device
            transfer_(caches, _mapping(new, device), caches, _mapping(old, device))

    def plans(self, cache: torch.Tensor) -> list[StorePlan]:
        """The pass's plans on the device of a cache: of the store, and of the load."""
        if cache.device not in self._plans:
            self._plans[cache.device] = [
                plan(_mapping(slots, cache.device), cache=cache, num_tokens=slots.size)
                for slots in (self.new_slots, self.all_slots)
            ]
        return self._plans[cache.device]

    def reorder_cache(self, beam_idx: Integer[torch.Tensor, " batch"]) -> None:
        """Give each row what another one has stored, in the same blocks until it goes on."""
        chosen, old = beam_idx.numpy(force=True), self.rows
        kept = [old[source] for source in chosen]  # all there, before one is forked
        self.rows = [self.allocator.fork(row) for row in kept]
        for row in old:
            self.allocator.release(row)
        self._mask, self.all_slots = self._mask[chosen], self.all_slots[chosen]

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: what is stored stays."""
        raise NotImplementedError(f"what is stored must stay, got crop({tokens_to_remove})")

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Refuse: rows come and go through `allocator`."""
        raise NotImplementedError("what is stored must stay; fork the rows of `allocator`")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Refuse: rows come and go through `allocator`."""
        raise NotImplementedError("what is stored must stay; release rows of `allocator`")


def _mapping(slots: np.ndarray, device: torch.device) -> SlotMapping:
    return SlotMapping(torch.from_numpy(slots.ravel()).to(device))
