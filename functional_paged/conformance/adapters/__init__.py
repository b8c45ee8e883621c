"""Adapters of the shipped backends."""
