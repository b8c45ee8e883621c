"""What is tried: steps, the cases made of them, and the guarded memory that they run in."""
