import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"p{n}", f"p{n}.wav", "alpha", "en") for n in range(count)]


def draw(sampler: PromptSampler, steps: int) -> list[str]:
    return [prompt.id for _ in range(steps) for prompt in sampler.next()]


SIZES = st.integers(1, 12).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


@given(SIZES, st.integers(0, 2**32), st.integers(1, 40))
def test_each_epoch_has_every_prompt_once(sizes: tuple[int, int], seed: int, steps: int) -> None:
    count, per_step = sizes
    ids = draw(PromptSampler(prompts(count), per_step, seed), steps)
    assert len(ids) == steps * per_step
    for start in range(0, len(ids), count):
        epoch = ids[start : start + count]
        assert max(Counter(epoch).values()) == 1
        assert len(epoch) == min(count, len(ids) - start)


@given(SIZES, st.integers(0, 2**32), st.integers(0, 20), st.integers(1, 20))
def test_a_resumed_sampler_goes_on_as_the_uninterrupted_one(
    sizes: tuple[int, int], seed: int, before: int, after: int
) -> None:
    count, per_step = sizes
    whole = draw(PromptSampler(prompts(count), per_step, seed), before + after)
    first = PromptSampler(prompts(count), per_step, seed)
    drawn = draw(first, before)
    second = PromptSampler(prompts(count), per_step, seed)
    second.load(json.loads(json.dumps(first.state())))
    assert drawn + draw(second, after) == whole
    assert second.state() != first.state()


def test_epochs_and_seeds_differ_in_order() -> None:
    sampler = PromptSampler(prompts(50), 50, seed=0)
    orders = [draw(sampler, 1), draw(sampler, 1), draw(PromptSampler(prompts(50), 50, seed=1), 1)]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != [prompt.id for prompt in prompts(50)]


def test_state_of_another_run_is_refused() -> None:
    state = PromptSampler(prompts(4), 2, seed=0).state()
    with pytest.raises(DataError, match="the checkpoint's seed is 0, this run's 1"):
        PromptSampler(prompts(4), 2, seed=1).load(state)
    with pytest.raises(DataError, match="the prompts are not those of the checkpoint"):
        PromptSampler(prompts(5), 2, seed=0).load(state)


def test_more_prompts_per_step_than_prompts_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"rollout\.prompts_per_step: 5 is not between 1 and 4"):
        PromptSampler(prompts(4), 5, seed=0)
    with pytest.raises(DataError, match="no prompts"):
        PromptSampler([], 1, seed=0)
