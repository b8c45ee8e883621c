"""The software model of ixformer's store kernels, which stands in for the library in tests."""

from ..backend import IxformerBackend
from .kernels import ModelFunctions
from .semantics import KernelSemantics

__all__ = ["KernelSemantics", "ModelFunctions", "backend"]


def backend(semantics: KernelSemantics | None = None) -> IxformerBackend:
    """A backend around the model of one plausible library, for tests and examples on the CPU.

    Example:
      >>> backend().name.startswith("ixformer-model")
      True
    """
    return IxformerBackend(ModelFunctions(semantics), device_check=False, name="ixformer-model")
