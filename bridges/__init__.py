"""The store in place on torch tensors, the load that undoes it, and a transfer, which is both."""

# Their operators come with the package: an exported program needs them where it is loaded.
from . import ixformer, numba_cpu, torch_inplace, triton_gpu  # noqa: F401
from ._backend import Backend, BackendUnsupported, Lowered, StorePlan
from ._load import load_single, transfer_
from ._plan import plan
from ._registry import available_backends
from ._store import store_single_

__all__ = [
    "Backend",
    "BackendUnsupported",
    "Lowered",
    "StorePlan",
    "available_backends",
    "load_single",
    "plan",
    "store_single_",
    "transfer_",
]
