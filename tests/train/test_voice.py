"""What several codec workers decoded, as one."""

import numpy as np

from rlhf_platform.train.voice import joined
from rlhf_platform.types import Sounds


def test_parts_are_joined_in_order_with_what_failed_in_its_place() -> None:
    first = Sounds.of([np.ones(2, np.float32), "no tokens"])
    second = Sounds.of(["cut", np.full(3, 0.5, np.float32)])
    whole = joined([first, second])
    assert (len(whole), whole.failures) == (4, {1: "no tokens", 2: "cut"})
    assert [None if (wave := whole.wave(n)) is None else wave.tolist() for n in range(4)] == [
        [1.0, 1.0],
        None,
        None,
        [0.5, 0.5, 0.5],
    ]
