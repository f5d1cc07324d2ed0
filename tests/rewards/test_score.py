"""From rollout samples to the answers of all rewards."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from rewards.answers import read_answer, read_batch
from rewards.plugin import terms_of
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.score import Scorer
from rewards.types import RewardInput
from rewards.worker import RewardWorker, shared_out
from rlhf_platform.errors import RecipeError, RewardError
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Failed, Prompt, Sample, StopReason

MINUTE = 60.0


def sample(text: str, duration: float = 1.0) -> Sample:
    prompt = Prompt(
        "p1",
        "clips/a.flac",
        "alpha bravo charlie delta",
        "en",
        speaker="ann",
        duration=duration,
        metadata={"group": "recorded"},
    )
    return Sample(prompt, (5, 6, 2), (-0.1, -0.2, -0.3), text, StopReason.LENGTH, 3)


def packed(*texts: str) -> PackedBatch:
    return PackedBatch.of(InputBatch.of([sample(text) for text in texts]))


@contextmanager
def scorer(folder: Path, code: str, *rewards: RewardConfig) -> Iterator[Scorer]:
    (folder / "mine.py").write_text(code)
    with Scorer(terms_of(rewards, folder)) as made:
        yield made


def test_a_reward_sees_what_the_sample_and_its_prompt_hold() -> None:
    assert InputBatch.of([sample("alpha")]).inputs() == [
        RewardInput(
            prompt_id="p1",
            text="alpha",
            tokens=(5, 6, 2),
            logprobs=(-0.1, -0.2, -0.3),
            reference="alpha bravo charlie delta",
            language="en",
            audio="clips/a.flac",
            speaker="ann",
            duration=1.0,
            stop_reason=StopReason.LENGTH,
            metadata={"group": "recorded"},
        )
    ]


INPUTS = st.builds(
    RewardInput,
    prompt_id=st.text(),
    text=st.text(),
    tokens=st.lists(st.integers(0, 2**31)).map(tuple),
    logprobs=st.lists(st.floats(-100, 0)).map(tuple),
    reference=st.text(),
    stop_reason=st.sampled_from(StopReason),
    metadata=st.dictionaries(st.text(), st.integers()),
)


@given(st.lists(INPUTS, max_size=6), st.data())
def test_samples_arrive_as_they_were_sent_and_any_part_of_them(inputs: list[RewardInput], data: st.DataObject) -> None:
    batch = PackedBatch.of(InputBatch.of_inputs(inputs))
    assert (batch.unpacked.inputs(), batch.samples) == (inputs, len(inputs))
    some = sorted(data.draw(st.sets(st.sampled_from(range(len(inputs))))) if inputs else [])
    assert batch.take(some).unpacked.inputs() == [inputs[i] for i in some]


def test_every_term_answers_for_every_sample(tmp_path: Path) -> None:
    code = (
        "def shape(sample):\n    return {'words': len(sample.text.split()), 'shout': -2}\n"
        "def picky(sample):\n    return None\n"
    )
    rewards = [RewardConfig(fn=fn) for fn in ("rewards.asr:wer_reward", "mine.py:shape", "mine.py:picky")]
    with scorer(tmp_path, code, *rewards) as made:
        came = made.score(packed("alpha bravo charlie delta", "alpha bravo"), MINUTE)
    wer, shape, picky = came.by_term
    assert wer == [1.0, 0.5]
    assert shape == [{"words": 4.0, "shout": -2.0}, {"words": 2.0, "shout": -2.0}]
    assert [answer.kind for answer in picky if isinstance(answer, Failed)] == ["not_a_number"] * 2
    assert {"reward_retried", "reward_restarted", "reward_cached", "seconds/reward/shape"} <= came.work.keys()


def test_terms_are_asked_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other to have begun."""
    code = (
        "import pathlib, time\n"
        "def meet(sample, mine, other):\n"
        f"    (pathlib.Path({str(tmp_path)!r}) / mine).touch()\n"
        f"    while not (pathlib.Path({str(tmp_path)!r}) / other).exists(): time.sleep(0.01)\n"
        "    return 1\n"
    )
    names = [("a", "b"), ("b", "a")]
    rewards = [RewardConfig(fn="mine.py:meet", name=m, kwargs={"mine": m, "other": o}, timeout=20) for m, o in names]
    with scorer(tmp_path, code, *rewards) as made:
        assert made.score(packed("x"), MINUTE).by_term == [[1.0], [1.0]]


def test_work_is_that_of_one_call(tmp_path: Path) -> None:
    code = "def fails(sample):\n    raise OSError\n"
    with scorer(tmp_path, code, RewardConfig(fn="mine.py:fails", retries=1)) as made:
        assert [made.score(packed("a", "b"), MINUTE).work["reward_retried"] for _ in range(2)] == [2.0, 2.0]


def test_the_example_reward_in_the_recipes() -> None:
    recipes = Path(__file__).parents[2] / "recipes" / "asr"
    term = RewardConfig(fn="my_rewards.py:brevity", kwargs={"words_per_second": 2})
    texts = ("", "a b c d", "a b c d e", "a b c d e f g h i j")
    with Scorer(terms_of([term], recipes)) as made:
        batch = PackedBatch.of(InputBatch.of([sample(text, duration=2.0) for text in texts]))
        assert made.score(batch, MINUTE).by_term == [[0, 0, -0.25, -1]]
        [[unknown]] = made.score(PackedBatch.of(InputBatch.of([sample("a", duration=0.0)])), MINUTE).by_term
    assert isinstance(unknown, Failed)
    assert unknown.kind == "raised"


REMEMBERS = """
import random
class Best:
    "How much better than the best so far."
    def __init__(self):
        self.best = 0.0
    def __call__(self, sample):
        value = len(sample.text) - self.best
        self.best = max(self.best, len(sample.text))
        return {"value": value, "noise": random.random()}
    def state_dict(self):
        return {"best": self.best}
    def load_state_dict(self, state):
        self.best = state["best"]
"""


def test_what_a_reward_remembers_and_its_random_numbers_go_on_in_another_process(tmp_path: Path) -> None:
    rewards = [RewardConfig(fn="mine.py:Best"), RewardConfig(fn="rewards.asr:wer_reward")]
    with scorer(tmp_path, REMEMBERS, *rewards) as first, scorer(tmp_path, REMEMBERS, *rewards) as second:
        first.score(packed("alpha"), MINUTE)
        state = first.state()
        assert state["Best"][0]["reward"] == {"best": 5}
        second.load_state(state)
        ours, theirs = (each.score(packed("bravo"), MINUTE).by_term[0] for each in (first, second))
        assert ours == theirs
        [answer] = ours
        assert isinstance(answer, dict)
        assert answer["value"] == 0.0


def test_two_runs_with_one_seed_draw_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import random\nimport numpy as np\ndef draw(sample):\n    return random.random() + np.random.rand()\n"
    )
    drawn = []
    for seed in (1, 1, 2):
        with Scorer(terms_of([RewardConfig(fn="mine.py:draw")], tmp_path, seed=seed)) as made:
            drawn.append(made.score(packed("a"), MINUTE).by_term)
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_processes_of_a_reward_draw_each_its_own(tmp_path: Path) -> None:
    code = (
        "import os, random, time\n"
        "def draw(sample):\n    time.sleep(0.02)\n    return {'process': os.getpid(), 'drawn': random.random()}\n"
    )
    with scorer(tmp_path, code, RewardConfig(fn="mine.py:draw", concurrency=2)) as made:
        [answers] = made.score(packed(*"abcdefghijklmnop"), MINUTE).by_term
    parts: list[Any] = answers
    assert len({part["process"] for part in parts}) == 2
    assert len({part["drawn"] for part in parts}) == 16


def test_a_state_that_is_not_plain_values_is_refused(tmp_path: Path) -> None:
    code = REMEMBERS.replace('return {"best": self.best}', "return {1, 2}")
    said = pytest.raises(RewardError, match=r"reward Best: state_dict\(\) must return plain JSON values")
    with scorer(tmp_path, code, RewardConfig(fn="mine.py:Best")) as made, said:
        made.state()


def test_gpus_are_shared_out_in_order() -> None:
    assert shared_out(["4", "5", "6"], [0, 1, 0.5, 0.5, 1]) == ["", "4", "5", "5", "6"]
    assert shared_out(["0", "1", "2", "3"], [2, 0, 2]) == ["0,1", "", "2,3"]
    assert shared_out(["0"], [1 / 3] * 3) == ["0"] * 3


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**320)
    | st.floats()
    | st.floats().map(np.float64)
    | st.floats(width=32).map(np.float32)
    | st.booleans().map(np.bool_)
    | st.fractions()
    | st.decimals()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.floats().map(np.array),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=8,
)


def is_finite_number(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isfinite(value))
    if isinstance(value, int | Fraction) and not isinstance(value, bool):
        return abs(value) <= int(sys.float_info.max)
    return False


@given(ANYTHING)
def test_only_finite_numbers_are_ever_answers(returned: Any) -> None:
    answer = read_answer(returned, "r")
    values = list(returned.values()) if isinstance(returned, dict) else [returned]
    if isinstance(answer, Failed):
        assert not values or not all(is_finite_number(v) for v in values) or odd_names(returned)
    else:
        assert values
        assert all(is_finite_number(value) for value in values)
        numbers = list(answer.values()) if isinstance(answer, dict) else [answer]
        assert numbers == [float(value) for value in values]
        assert all(type(number) is float and math.isfinite(number) for number in numbers)


def odd_names(returned: Any) -> bool:
    return isinstance(returned, dict) and not all(isinstance(name, str) for name in returned)


@given(ANYTHING, st.integers(1, 5))
def test_a_batch_always_has_one_answer_per_sample(returned: Any, count: int) -> None:
    answers = read_batch(returned, count, "r")
    assert len(answers) == count
    fits = isinstance(returned, list | tuple) and len(returned) == count
    assert fits or all(isinstance(answer, Failed) and answer.kind == "wrong_shape" for answer in answers)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        "local",
        num_cpus=1,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield
    ray.shutdown()


@pytest.mark.slow
def test_the_actor_scores_and_reports_a_bad_recipe_as_such(cluster: None, tmp_path: Path) -> None:
    def worker(fn: str) -> Any:
        return RewardWorker.options(num_cpus=0.25).remote(terms_of([RewardConfig(fn=fn)], tmp_path), [], MINUTE)

    good, bad = worker("rewards.asr:wer_reward"), worker("gone.py:reward")
    ray.get(good.start.remote(0, {}), timeout=60)
    assert ray.get(good.score.remote(packed("alpha bravo"), MINUTE), timeout=60).by_term == [[0.5]]
    assert ray.get(good.evaluate.remote(packed("alpha bravo"), MINUTE), timeout=60).by_term == []
    with pytest.raises(RecipeError, match=r"rewards\[0\]\.fn is 'gone\.py:reward'"):
        ray.get(bad.start.remote(0, {}), timeout=60)
