"""What one table says against another row or another table: differences seed by seed, and orders that turn round."""

from collections.abc import Mapping, Sequence


def paired_differences(before: Mapping[int, float], after: Mapping[int, float]) -> dict[int, float]:
    """after − before for every seed that both have, by seed.

    What a seed decides for both (the first weights, the order of the pictures, here even the first epochs) drops out of
    the difference, and does not drop out of the two ranges.

    Raises:
        ValueError: they share no seed.
    """
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise ValueError(f"expected a common seed, got {sorted(before)} and {sorted(after)}")
    return {seed: after[seed] - before[seed] for seed in shared}


def turned_pairs(first: Sequence[float], second: Sequence[float]) -> int:
    """How many pairs of methods stand the other way round in a second table.

    Among N methods there are N (N − 1) / 2 pairs; 0 means the same order, all of them the reverse order. A tie in
    either table turns nothing. Values are not compared across tables, so they may have different units.

    Args:
        first, second: one value for each method, in the same order.

    Raises:
        ValueError: lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"expected as many values, got {len(first)} and {len(second)}")
    return sum((first[i] - first[j]) * (second[i] - second[j]) < 0 for i in range(len(first)) for j in range(i))
