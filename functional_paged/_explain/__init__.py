"""Drawing an index spec: what happens to each token, in the terminal and as SVG."""

from .explanation import explain
from .model import Explanation

__all__ = ["Explanation", "explain"]
