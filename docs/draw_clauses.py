"""Draw the examples of `docs/spec.md` into `docs/img`.

C1-C4, C16, C17, C20 and C22 are not about places, so they have no drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, explain

FOLDER = Path(__file__).parent / "img"


@dataclass(frozen=True)
class Drawing:
    """One example of a clause: its spec and what the spec is relative to."""

    clause: str
    name: str
    spec: IndexSpec
    num_tokens: int
    cache_shape: tuple[int, int, int, int] = (6, 1, 2, 1)

    def svg(self) -> str:
        """The text of the drawing."""
        return explain(self.spec, cache_shape=self.cache_shape, num_tokens=self.num_tokens).to_svg()


def i32(*values: object) -> np.ndarray:
    """The values as the rows of an int32 array."""
    return np.array(values, np.int32)


ROWS = i32([4, 2], [5, 0])

DRAWINGS = (
    Drawing("C5", "c05", BlockTable(ROWS, i32(1, 2), i32(0, 3, 4)), 4),
    Drawing("C5", "c05_decode", BlockTable(ROWS, i32(1, 2)), 2),
    Drawing("C6", "c06", BlockTable(ROWS, i32(-1, 2), i32(0, 3, 4)), 4),
    Drawing("C7", "c07", BlockTable(ROWS, i32(1, 2), i32(0, 0, 1)), 1),
    Drawing("C8", "c08", BlockTable(i32([4, PAD, 2]), i32(1), i32(0, 4)), 4),
    Drawing("C9", "c09", BlockTable(ROWS, i32(3, 4)), 2),
    Drawing("C10", "c10", BlockTable(i32([4, 2]), i32(1), i32(0, 2)), 4),
    Drawing("C11", "c11", BlockTable(i32([4, 2]), i32(1), i32(0, 3)), 2),
    Drawing("C12", "c12", BlockTable(i32([4, 6]), i32(1), i32(0, 2)), 2),
    Drawing(
        "C13", "c13", ChunkPlan(i32([1, 5, 0, 2], [0, 4, 1, 1], [9, 9, 9, 0], [3, -1, 0, 1])), 4
    ),
    Drawing("C13", "c13_broken", ChunkPlan(i32([0, 4, 1, 2])), 2),
    Drawing("C13", "c13_twice", ChunkPlan(i32([0, 4, 0, 2], [1, 5, 0, 1])), 2),
    Drawing("C14", "c14", SlotMapping(i32(9, PAD, -7, 0)), 4),
    Drawing("C15", "c15", SlotMapping(i32(9, 3, 9)), 3),
    Drawing("C18", "c18", ChunkPlan(np.zeros((0, 4), np.int32)), 2),
    Drawing("C19", "c19", BlockTable(i32([2**20 - 1]), i32(63)), 1, (2**20, 8, 64, 128)),
    Drawing("C21", "c21", BlockTable(ROWS, i32(0, 0), i32(0, 3, 1)), 3),
)


def main() -> None:
    """Write the drawings; one that there is no more goes."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.svg"):
        path.unlink()
    for drawing in DRAWINGS:
        (FOLDER / f"{drawing.name}.svg").write_text(drawing.svg(), encoding="utf-8")
    print(f"{len(DRAWINGS)} drawings in {FOLDER}")


if __name__ == "__main__":
    main()
