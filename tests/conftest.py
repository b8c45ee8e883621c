"""Settings that must be in place before any test module is imported."""

import os

# Sharding tests need several devices, and JAX reads this once, when it starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

from hypothesis import settings

# print_blob: a failure prints what reproduces it. No deadline: JAX compiles inside some examples.
settings.register_profile("project", print_blob=True, deadline=None)
settings.load_profile("project")
