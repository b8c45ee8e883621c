"""Settings that must be in place before any test module is imported."""

import os

# Sharding tests need several devices, and JAX reads this once, when it starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

from hypothesis import HealthCheck, settings

# print_blob: a failure prints what reproduces it. Neither a deadline nor a complaint about slow
# examples: JAX compiles inside some of them, and a busy machine is no fault of the project.
settings.register_profile(
    "project", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")
