"""Running cases in processes of their own, judging the bits, and the ledgers of known failures."""
