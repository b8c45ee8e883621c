"""Trials: what a library's kernels do, seen in small stores that can harm nothing."""
