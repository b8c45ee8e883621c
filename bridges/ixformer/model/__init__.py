"""The software model of ixformer's store kernels, which stands in for the library in tests."""

from ..backend import IxformerBackend
from .kernels import ModelFunctions
from .semantics import PLAUSIBLE, KernelSemantics

__all__ = ["PLAUSIBLE", "KernelSemantics", "ModelFunctions", "backend"]


def backend(semantics: KernelSemantics | None = None) -> IxformerBackend:
    """A backend around the model, for tests and examples; runs on the CPU.

    Args:
      semantics: which of the plausible libraries to be around.

    Example:
      >>> backend().name.startswith("ixformer-model")
      True
    """
    return IxformerBackend(ModelFunctions(semantics), device_check=False, name="ixformer-model")
