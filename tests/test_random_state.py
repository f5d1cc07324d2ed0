import json
import random

import numpy as np
import torch

from rlhf_platform import random_state


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), float(torch.rand(()))]


def test_the_generators_go_on_where_they_stood_also_through_json() -> None:
    draw()
    state = json.loads(json.dumps(random_state.capture()))
    first = [draw() for _ in range(3)]
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    random_state.restore(state)
    assert [draw() for _ in range(3)] == first
