"""A drop-in for mojo_opset's paged store of one tensor, and its chunk planner."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, SupportsIndex

import array_api_compat.torch as xp
import torch

from functional_paged import BlockTable, ChunkPlan, SpecError, internal
from functional_paged.internal import Int32, Shaped, destinations

from ._backend import BackendUnsupported
from ._store import store_single_

if TYPE_CHECKING:
    from ._backend import Backend


class MojoStorePagedSingleCache(torch.nn.Module):
    """Stores one tensor into one paged cache, called as mojo_opset's operators are.

    Args:
      backend: a name, a backend object, or `None`, as for `bridges.store_single_`.

    Example:
      >>> cache, states = torch.zeros(2, 1, 2, 1), torch.ones(1, 1, 1)
      >>> table, contexts = torch.tensor([[1]]).int(), torch.tensor([1]).int()
      >>> store = MojoStorePagedSingleCache()
      >>> store(states, cache, table, None, contexts).flatten().tolist()
      [0.0, 0.0, 0.0, 1.0]
    """

    def __init__(self, backend: str | Backend | None = None):
        super().__init__()
        self.backend = backend

    def forward(
        self,
        states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"] | None = None,
        cu_q_lens: Int32[torch.Tensor, " batch+1"] | None = None,
        context_kv_lens: Int32[torch.Tensor, " batch"] | None = None,
        *,
        chunk_metadata: Int32[torch.Tensor, "num_chunks 4"] | None = None,
    ) -> Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"]:
        """Write each stored token's row of `states` into `cache`, in place.

        Args:
          states: `(num_tokens, kv_heads, head_dim)` of the cache's dtype. Left alone.
          cache: `(num_blocks, kv_heads, block_size, head_dim)`. Stored slots are written.
          block_table: see `BlockTable`. int32[batch, max_blocks_per_seq]
          cu_q_lens: see `BlockTable`; `None` is decode. int32[batch + 1]
          context_kv_lens: see `BlockTable`. int32[batch]
          chunk_metadata: see `ChunkPlan`; instead of the other three. int32[num_chunks, 4]

        Returns:
          The very object given as `cache`.

        Raises:
          SpecError: C1 where both kinds of index arguments are given, or neither is whole; else
            as `bridges.store_single_`.
          BackendUnsupported: the backend cannot load or cannot serve this call.
        """
        arrays = (block_table, cu_q_lens, context_kv_lens)
        names = ("block_table", "cu_q_lens", "context_kv_lens")
        given = " and ".join(n for n, a in zip(names, arrays, strict=True) if a is not None)
        if chunk_metadata is not None and given:
            raise SpecError("C1", f"chunk_metadata must come without {given}, got both")
        if chunk_metadata is not None:
            spec = ChunkPlan(chunk_metadata)
        elif block_table is not None and context_kv_lens is not None:
            spec = BlockTable(block_table, context_kv_lens, cu_q_lens)
        else:
            raise SpecError(
                "C1",
                "either chunk_metadata or both block_table and context_kv_lens must be given, "
                f"got {given or 'none of them'}",
            )
        return store_single_(cache, states, spec, backend=self.backend)


def build_paged_kv_chunk_metadata(
    block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"],
    cu_q_lens: Int32[torch.Tensor, " batch+1"] | None,
    context_kv_lens: Int32[torch.Tensor, " batch"],
    block_size: SupportsIndex,
) -> Int32[torch.Tensor, "num_chunks 4"]:
    """Plan the chunks of a block table: one a row and block that has tokens and is no hole.

    Waits for the device: how many rows the plan has depends on values.

    Args:
      block_table: see `BlockTable`. int32[batch, max_blocks_per_seq]
      cu_q_lens: see `BlockTable`; `None` is decode. int32[batch + 1]
      context_kv_lens: see `BlockTable`. int32[batch]
      block_size: token positions in a block.

    Returns:
      `src_token_start`, `dst_block_id`, `dst_block_offset`, `chunk_len` of each chunk: row after
      row of the table, and within it block after block. int32[num_chunks, 4]

    Raises:
      SpecError: C1, C3, C4. A `cu_q_lens` that is invalid by value (C21) gives no chunks.

    Example:
      >>> table = torch.tensor([[4, 2]], dtype=torch.int32)
      >>> cu_q_lens, contexts = torch.tensor([0, 3]).int(), torch.tensor([15]).int()
      >>> build_paged_kv_chunk_metadata(table, cu_q_lens, contexts, 16).tolist()
      [[0, 4, 15, 1], [1, 2, 0, 2]]
    """
    spec = BlockTable(block_table, context_kv_lens, cu_q_lens)
    internal.check_index_spec(internal.TORCH_STORE, spec)
    _, _, in_block, _ = internal.as_cache_shape((0, 0, block_size, 0))
    internal.check_devices(spec.arrays())
    to = destinations(xp, spec, in_block, _tokens_named(spec))
    stored = to.named & (to.block >= 0)  # C8; a planner does not know num_blocks (C12)
    edge = torch.ones_like(stored[:1])
    changes = stored[1:] != stored[:-1]
    changes |= (to.source[1:] != to.source[:-1]) | (to.column[1:] != to.column[:-1])
    starts = torch.nonzero(stored & torch.cat([edge, changes]))[:, 0]
    ends = torch.nonzero(stored & torch.cat([changes, edge]))[:, 0] + 1
    columns = (starts, to.block[starts], to.offset[starts], ends - starts)
    return torch.stack([column.to(torch.int32) for column in columns], dim=1)


def _tokens_named(spec: BlockTable) -> int:
    """How many tokens to look at: up to the last one of a row that is not padding."""
    batch = spec.context_kv_lens.shape[0]
    if spec.cu_q_lens is None or batch == 0:
        return batch
    return int(torch.where(spec.context_kv_lens >= 0, spec.cu_q_lens[1:], 0).max())


def register() -> type:
    """Make the operator known to mojo_opset, as `MojoStorePagedSingleCache` with its backends.

    The core class stores by plain torch, as mojo_opset's own core classes do. Where mojo_opset has
    an ixformer backend and the platform is `ilu`, that backend's class stores by ixformer.
    Registering again returns the class of the first time.

    Unproven: this follows the registry of mojo_opset as published (a core class is a direct
    subclass of `MojoOperator`; a backend's class is a subclass of that, its name the backend's
    followed by the operator's), and is tested against a small stand-in for it only.

    Returns:
      The core class; calling it gives an instance of the backend that mojo_opset chooses.

    Raises:
      BackendUnsupported: mojo_opset cannot be imported, or has such an operator of its own.
    """
    try:
        base = importlib.import_module("mojo_opset.core.operator").MojoOperator
        registry = importlib.import_module("mojo_opset.core.backend_registry")
    except (ImportError, AttributeError) as error:
        raise BackendUnsupported(
            f"mojo_opset cannot be used ({type(error).__name__}: {error}); install it, or use "
            "bridges.mojo.MojoStorePagedSingleCache as it is"
        ) from error
    name = MojoStorePagedSingleCache.__name__
    for core in base.__subclasses__():
        if core.__name__ == name:
            if core.__module__ == __name__:
                return core
            raise BackendUnsupported(
                f"mojo_opset must have no {name} of its own, got {core!r}; use that one, or "
                "bridges.mojo.MojoStorePagedSingleCache as it is"
            )
    core = type(base)(name, (base,), _members("torch", ["npu", "mlu", "meta_device", "ilu"]))
    if "ixformer" in getattr(registry, "BACKEND_PRIORITY_LIST", ()):
        type(base)("IxformerStorePagedSingleCache", (core,), _members("ixformer", ["ilu"]))
    return core


def _members(backend: str, platforms: list[str]) -> dict[str, object]:
    return {
        "__module__": __name__,
        "__doc__": MojoStorePagedSingleCache.__doc__,
        "supported_platforms_list": platforms,
        "backend": backend,
        "forward": MojoStorePagedSingleCache.forward,
    }
