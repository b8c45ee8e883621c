"""Trees of tensors: tuples, lists and dicts, as `jax.tree` has them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import torch

from functional_paged import SpecError

Tree: TypeAlias = Any
"""A tensor, or a tuple, list or dict of trees."""

Path: TypeAlias = tuple[Hashable, ...]
"""Where a leaf is: the keys that lead to it, none for a tensor that is the whole tree."""


def leaves_of(tree: Tree, path: Path = ()) -> dict[Path, Any]:
    """The leaves of a tree by where they are, in its order; what is no container is a leaf."""
    if not isinstance(tree, (tuple, list, dict)):
        return {path: tree}
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    leaves: dict[Path, Any] = {}
    for key, child in children:
        leaves.update(leaves_of(child, (*path, key)))
    return leaves


def paired(
    name: str, tree: Tree, other_name: str, other: Tree, path: Path = ()
) -> list[tuple[Path, Any, Any]]:
    """Each leaf of a tree with that of another at the same place; C1 where one lacks it."""
    # Tensors and pairs of them, which a store of microseconds has, without the dicts.
    if isinstance(tree, torch.Tensor) and isinstance(other, torch.Tensor):
        return [(path, tree, other)]
    both = isinstance(tree, (tuple, list)) and isinstance(other, (tuple, list))
    if both and len(tree) == len(other):
        pairs = []
        for key, (child, its) in enumerate(zip(tree, other, strict=True)):
            pairs += paired(name, child, other_name, its, (*path, key))
        return pairs
    ours, theirs = leaves_of(tree, path), leaves_of(other, path)
    for at in [*ours, *theirs]:
        if at not in ours or at not in theirs:
            has, lacks = (name, other_name) if at in ours else (other_name, name)
            text = f"{lacks} must have the tree of {has}, got no leaf {in_words(lacks, at)}"
            raise SpecError("C1", text)
    return [(at, leaf, theirs[at]) for at, leaf in ours.items()]


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with each leaf replaced by what the function makes of it."""
    if isinstance(tree, dict):
        return {key: mapped(function, child) for key, child in tree.items()}
    if isinstance(tree, (tuple, list)):
        children = [mapped(function, child) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return function(tree)


def in_words(name: str, path: Path) -> str:
    """The expression for a leaf of a tree of that name, `cache[0]['k']`."""
    return name + "".join(f"[{key!r}]" for key in path)
