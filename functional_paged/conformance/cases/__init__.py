"""Steps, the cases made of them, and the guarded memory that they run in."""
