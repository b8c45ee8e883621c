"""The store in place, on torch tensors: plain torch anywhere, vendor kernels where they load."""

from ._backend import Backend, BackendUnsupported
from ._plan import StorePlan, plan
from ._registry import available_backends
from ._store import store_single_

__all__ = [
    "Backend",
    "BackendUnsupported",
    "StorePlan",
    "available_backends",
    "plan",
    "store_single_",
]
