"""From rollout samples to outcomes."""

import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from rewards.algebra import weighted_sum
from rewards.answers import read_answer, read_batch
from rewards.plugin import RewardFunction
from rewards.score import Scorer
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError, RewardError
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Failed, Prompt, Sample, Scored, StopReason


def sample(text: str, reference: str = "alpha bravo charlie delta", duration: float = 1.0) -> Sample:
    prompt = Prompt(
        "p1",
        "clips/a.flac",
        reference,
        "en",
        speaker="ann",
        duration=duration,
        metadata={"group": "recorded"},
    )
    return Sample(prompt, (5, 6, 2), (-0.1, -0.2, -0.3), text, StopReason.LENGTH, 3)


def test_a_reward_sees_what_the_sample_and_its_prompt_hold() -> None:
    assert RewardInput.of(sample("alpha")) == RewardInput(
        prompt_id="p1",
        text="alpha",
        tokens=(5, 6, 2),
        reference="alpha bravo charlie delta",
        language="en",
        audio="clips/a.flac",
        speaker="ann",
        duration=1.0,
        stop_reason=StopReason.LENGTH,
        metadata={"group": "recorded"},
    )


def test_terms_are_weighted_summed_and_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def shape(sample):\n    return {'words': len(sample.text.split()), 'shout': -2}\n"
    )
    scorer = Scorer(
        [
            RewardConfig(fn="rewards.asr:wer_reward", name="wer", weight=2.0),
            RewardConfig(fn="mine.py:shape", weight=0.1),
        ],
        tmp_path,
    )
    good, worse = sample("alpha bravo charlie delta"), sample("alpha bravo")
    first, second = scorer.score([good, worse])
    assert first.sample is good
    assert second.sample is worse
    # 2 * 1 + .1 * (4 - 2), and 2 * (1 - 2/4) + .1 * (2 - 2)
    assert first.outcome == Scored(2.2, {"wer": 1.0, "shape.words": 4.0, "shape.shout": -2.0})
    assert second.outcome == Scored(1.0, {"wer": 0.5, "shape.words": 2.0, "shape.shout": -2.0})
    scorer.close()


def test_one_failed_term_fails_the_sample_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def picky(sample):\n    return None if sample.text == 'b' else 1\n")
    scorer = Scorer([RewardConfig(fn="rewards.asr:wer_reward"), RewardConfig(fn="mine.py:picky")], tmp_path)
    outcomes = [scored.outcome for scored in scorer.score([sample("a"), sample("b"), sample("c")])]
    assert [type(outcome) for outcome in outcomes] == [Scored, Failed, Scored]
    failed = outcomes[1]
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.term) == ("not_a_number", "picky")
    scorer.close()


def test_the_example_reward_in_the_recipes(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[2] / "recipes" / "asr"
    scorer = Scorer([RewardConfig(fn="my_rewards.py:brevity", kwargs={"words_per_second": 2})], recipes)
    scored = scorer.score([sample(text, duration=2.0) for text in ("", "a b c d", "a b c d e", "a b c d e f g h i j")])
    assert [s.outcome for s in scored] == [Scored(value, {"brevity": value}) for value in (0, 0, -0.25, -1)]
    [unknown] = scorer.score([sample("a", duration=0.0)])
    assert isinstance(unknown.outcome, Failed)
    assert unknown.outcome.kind == "raised"
    scorer.close()


REMEMBERS = """
class Best:
    "How much better than the best so far."
    def __init__(self):
        self.best = 0.0
    def __call__(self, sample):
        value = len(sample.text) - self.best
        self.best = max(self.best, len(sample.text))
        return value
    def state_dict(self):
        return {"best": self.best}
    def load_state_dict(self, state):
        self.best = state["best"]
"""


def test_what_a_reward_remembers_goes_on_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REMEMBERS)
    rewards = [RewardConfig(fn="mine.py:Best"), RewardConfig(fn="rewards.asr:wer_reward")]
    first, second = Scorer(rewards, tmp_path), Scorer(rewards, tmp_path)
    first.score([sample("alpha")])
    assert first.state() == {"Best": {"best": 5}}
    second.load_state(first.state())
    [scored] = second.score([sample("bravo")])
    assert isinstance(scored.outcome, Scored)
    assert scored.outcome.parts["Best"] == 0.0
    for scorer in (first, second):
        scorer.close()


def test_a_state_that_is_not_plain_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REMEMBERS.replace('return {"best": self.best}', "return {1, 2}"))
    scorer = Scorer([RewardConfig(fn="mine.py:Best")], tmp_path)
    with pytest.raises(RewardError, match=r"reward Best: state_dict\(\) must return plain JSON values"):
        scorer.state()
    scorer.close()


def reward(weight: float = 1.0) -> RewardFunction:
    return RewardFunction(name="r", fn=lambda sample: 0.0, weight=weight)


def test_a_sum_beyond_a_float_is_a_failure() -> None:
    outcome = weighted_sum([reward(1000.0)], [1e308])
    assert isinstance(outcome, Failed)
    assert outcome.kind == "not_a_number"


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


@given(ANYTHING, st.floats(-1000, 1000))
def test_only_finite_numbers_are_ever_scored(returned: Any, weight: float) -> None:
    outcome = weighted_sum([reward(weight)], [read_answer(returned, "r")])
    values = list(returned.values()) if isinstance(returned, dict) else [returned]
    if isinstance(outcome, Scored):
        assert values
        assert all(is_finite_number(value) for value in values)
        assert math.isfinite(outcome.value)
        assert list(outcome.parts.values()) == [float(value) for value in values]
    else:
        overflow = "beyond the range" in outcome.message
        assert overflow or not values or not all(is_finite_number(v) for v in values) or odd_names(returned)


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
    from rewards.worker import RewardWorker

    good = RewardWorker.options(num_cpus=0.25).remote([RewardConfig(fn="rewards.asr:wer_reward")], str(tmp_path))
    assert ray.get(good.ready.remote(), timeout=60) == ["wer_reward"]
    [scored] = ray.get(good.score.remote([sample("alpha bravo")]), timeout=60)
    assert scored.outcome == Scored(0.5, {"wer_reward": 0.5})
    bad = RewardWorker.options(num_cpus=0.25).remote([RewardConfig(fn="gone.py:reward")], str(tmp_path))
    with pytest.raises(RecipeError, match=r"rewards\[0\]\.fn is 'gone\.py:reward'"):
        ray.get(bad.ready.remote(), timeout=60)
