"""The results of a run as data and as a page."""
