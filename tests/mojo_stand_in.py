"""A stand-in for the parts of mojo_opset that registering and the contract test touch."""

from __future__ import annotations

import types
from collections.abc import MutableMapping, Sequence

import torch


class Registry:
    """As mojo_opset's registry: the backend is what a class is called before the operator."""

    def __init__(self, core, priorities, platform):
        self.operator, self._registry = core.__name__.removeprefix("Mojo"), {}
        self.priorities, self.platform = priorities, platform

    def register(self, cls):
        backend = cls.__name__[: cls.__name__.index(self.operator)].lower()
        if backend not in self.priorities:
            raise AssertionError(backend)
        if self.platform in cls.supported_platforms_list:
            self._registry[backend] = cls

    def get(self):
        return self._registry[min(self._registry, key=self.priorities.index)]


def install(
    modules: MutableMapping[str, types.ModuleType],
    priorities: Sequence[str] = ("ixformer", "ttx", "torch"),
    platform: str = "ilu",
) -> type:
    """Put the modules of mojo_opset where `import` finds them, and return the base of operators."""

    class MojoOperator(torch.nn.Module):
        supported_platforms_list = ("npu", "mlu", "meta_device", "ilu")

        def __init_subclass__(cls, **kwargs):
            super().__init_subclass__(**kwargs)
            if MojoOperator in cls.__bases__:
                cls._registry = Registry(cls, priorities, platform)
                type("Torch" + cls._registry.operator, (cls,), {"__module__": cls.__module__})
            else:
                cls._registry.register(cls)

        def __new__(cls, *args, **kwargs):
            if MojoOperator in cls.__bases__:
                chosen = cls._registry.get()
                return chosen.__new__(chosen, *args, **kwargs)
            return super().__new__(cls)

        def __init__(self, **kwargs):  # which swallows what it does not know
            super().__init__()

    for name, members in {
        "": {},
        ".core": {},
        ".experimental": {},
        ".core.operator": {"MojoOperator": MojoOperator},
        ".core.backend_registry": {"BACKEND_PRIORITY_LIST": list(priorities)},
        ".utils": {},
        ".utils.platform": {"get_torch_device": lambda: "cpu"},
    }.items():
        module = types.ModuleType("mojo_opset" + name)
        vars(module).update(members, __path__=[])
        modules[module.__name__] = module
    return MojoOperator
