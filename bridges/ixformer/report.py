"""What a probe found of one library on one device: a frozen report, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .library import CALL_FORMS
from .trials.finding import Status


@dataclass(frozen=True)
class Capability:
    """One thing that a library may or may not do.

    Attributes:
      name: what it is.
      status, evidence: see `Finding`.
    """

    name: str
    status: Status
    evidence: str


@dataclass(frozen=True)
class ProbeReport:
    """All findings of a probe. They hold for the library, device and driver named here only.

    Attributes:
      wheel: package and version of the library.
      device: name of the device.
      driver: version of its driver.
      capabilities: the findings, in the order of the trials.

    Example:
      >>> found = Capability("store_mode", "disproven", "TypeError: no such argument")
      >>> report = ProbeReport("ixformer 0.7.0", "Iluvatar BI-V150", "4.5.0", (found,))
      >>> report["store_mode"].status
      'disproven'
    """

    wheel: str
    device: str
    driver: str
    capabilities: tuple[Capability, ...]

    def __getitem__(self, name: str) -> Capability:
        """The finding of that name; `KeyError` if there is none."""
        return {capability.name: capability for capability in self.capabilities}[name]

    @property
    def stores_one_tensor(self) -> bool:
        """Whether one of the call forms is proven, so that the backend can store."""
        return any(c.name in CALL_FORMS and c.status == "proven" for c in self.capabilities)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"
