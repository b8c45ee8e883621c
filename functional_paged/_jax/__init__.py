"""The JAX store; the only package here that imports JAX."""
