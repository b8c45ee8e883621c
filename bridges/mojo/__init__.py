"""Drop-ins for mojo_opset's operators on paged caches, and for its chunk planner."""

from .operators import (
    MojoDequantFromPagedKVCache,
    MojoStoreLowrank,
    MojoStorePagedKVCache,
    MojoStorePagedKVCacheC8,
    MojoStorePagedMLAKVCache,
    MojoStorePagedSingleCache,
)
from .planner import build_paged_kv_chunk_metadata
from .registration import register

__all__ = [
    "MojoDequantFromPagedKVCache",
    "MojoStoreLowrank",
    "MojoStorePagedKVCache",
    "MojoStorePagedKVCacheC8",
    "MojoStorePagedMLAKVCache",
    "MojoStorePagedSingleCache",
    "build_paged_kv_chunk_metadata",
    "register",
]
