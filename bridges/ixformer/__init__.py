"""The backend for Iluvatar devices: the vendor's in-place kernels, each use proven by a trial."""

from .backend import IxformerBackend
from .probe import probe
from .report import Capability, ProbeReport

__all__ = ["Capability", "IxformerBackend", "ProbeReport", "probe"]
