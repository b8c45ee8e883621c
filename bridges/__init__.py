"""The store in place, on torch tensors: plain torch anywhere, vendor kernels where they load."""

from ._backend import Backend, BackendUnsupported
from ._plan import StorePlan, plan
from ._store import store_single_
from .registry import available_backends

__all__ = [
    "Backend",
    "BackendUnsupported",
    "StorePlan",
    "available_backends",
    "plan",
    "store_single_",
]
