"""Other people's operations as backends, each loaded only if its package is there."""
