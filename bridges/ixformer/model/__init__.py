"""The software model of ixformer's store kernels, which stands in for the library in tests."""

from .kernels import ModelFunctions
from .semantics import PLAUSIBLE, KernelSemantics

__all__ = ["PLAUSIBLE", "KernelSemantics", "ModelFunctions"]
