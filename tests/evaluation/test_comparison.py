import itertools
import random

import pytest

from rsepm_edu.evaluation.comparison import paired_differences, turned_pairs


def test_differences_are_taken_seed_by_seed():
    assert paired_differences({0: 60.0, 1: 66.0, 7: 1.0}, {1: 67.0, 0: 62.0, 5: 3.0}) == {0: 2.0, 1: 1.0}


def test_rows_without_a_common_seed_cannot_be_paired():
    with pytest.raises(ValueError, match=r"expected a common seed, got \[0, 1\] and \[2\]"):
        paired_differences({1: 1.0, 0: 1.0}, {2: 1.0})


def test_turned_pairs_against_sorting():
    """The number of neighbours that bubble sort exchanges is the number of turned pairs."""
    source = random.Random(0)
    for _ in range(20):
        first, second = (source.sample(range(100), 7) for _ in range(2))
        order = [value for _, value in sorted(zip(first, second, strict=True))]
        swaps = 0
        for end in range(len(order) - 1, 0, -1):
            for i in range(end):
                if order[i] > order[i + 1]:
                    order[i], order[i + 1] = order[i + 1], order[i]
                    swaps += 1
        assert turned_pairs(first, second) == swaps


def test_turned_pairs_of_the_same_the_reverse_and_a_tied_order():
    values = [3.0, 1.0, 2.0, 5.0]
    assert turned_pairs(values, [10 * v for v in values]) == 0
    assert turned_pairs(values, [-v for v in values]) == len(list(itertools.combinations(values, 2)))
    assert turned_pairs([1, 1], [2, 3]) == turned_pairs([2, 3], [1, 1]) == 0
    with pytest.raises(ValueError, match="expected as many values, got 1 and 2"):
        turned_pairs([1], [1, 2])
