"""The software model of ixformer's store kernels, which stands in for the library in tests."""

from ..backend import IxformerBackend
from .kernels import ModelFunctions
from .semantics import PLAUSIBLE, KernelSemantics

__all__ = ["PLAUSIBLE", "KernelSemantics", "ModelFunctions", "backend"]


def backend() -> IxformerBackend:
    """A backend around the model, for tests and examples; runs on any device.

    Example:
      >>> backend().name
      'ixformer-model'
    """
    made = IxformerBackend(ModelFunctions(), device_check=False)
    made.name = "ixformer-model"
    return made
