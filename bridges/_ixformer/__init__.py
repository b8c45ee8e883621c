"""The parts of the ixformer backend, its probe and its software model."""
