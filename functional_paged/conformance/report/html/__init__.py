"""The report as one self-contained page."""

from .page import to_html

__all__ = ["to_html"]
