"""The rewards that a recipe names: by an endpoint that says what it is told, and in a pool as a run has them."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.judge import Preference, RubricScore
from rewards.judge.judging import PairJudge, RubricJudge
from rewards.judge.settings import JudgeSettings
from rewards.plugin import check_rewards
from rewards.pool import RewardPool
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.recipe.validate_dialogue import DEFAULT_PROMPTS
from rlhf_platform.types import Failed
from tests.rewards.judge.endpoint import Body, endpoint, prefers, shown

NOBODY = "http://127.0.0.1:9/v1"
HISTORY = [{"role": "user", "audio": "u.flac", "text": "my name is paul"}, {"role": "assistant", "text": "hello paul"}]
VOTING: dict[str, Any] = {"expected": False, "timeout": 60.0}


def sample(text: str, reference: str = "you are paul", **metadata: object) -> RewardInput:
    about = {"said": "who am i", "persona": "you are zoe", "history": HISTORY} | metadata
    return RewardInput("p", text, reference=reference, metadata=about)


def scored(reward: Preference | RubricScore, given: RewardInput) -> Any:
    return asyncio.run(reward(given))


def test_the_recipe_knows_what_judges_are_asked_with_where_it_does_not_say() -> None:
    settings = JudgeSettings(judge=NOBODY)
    assert {
        "Preference": {"prompt": PairJudge(settings).prompt.name},
        "RubricScore": {"prompt": RubricJudge(settings).prompt.name, "rubric": RubricScore(judge=NOBODY).rubric},
    } == DEFAULT_PROMPTS


def test_a_better_reply_is_worth_phi_of_its_level() -> None:
    with endpoint(prefers("paul")) as fake:
        parts = scored(Preference(judge=fake.url, **VOTING), sample("<think>i am B: paul</think> paul it is", "no"))
    assert len(fake.requests) == 2
    assert all("i am B" not in shown(body) for body in fake.requests)  # a trace is not for the judge
    assert parts == {
        "preference": 0.75,
        "level": 1.0,
        "agreement": 1.0,
        "abstained": 0.0,
        "cached": 0.0,
        "verdicts": 2.0,
        "tokens": 202.0,
    }


def test_the_map_is_the_recipes() -> None:
    with endpoint(prefers("paul")) as fake:
        reward = Preference(judge=fake.url, phi={"-1": -3, "1": 5}, **VOTING)
        assert scored(reward, sample("no"))["preference"] == -3.0


@pytest.mark.parametrize("text", ["", "<think>a trace that never ends", "<think>done</think>  "])
def test_an_empty_reply_is_the_lowest_level_and_nobody_is_asked(text: str) -> None:
    parts = scored(Preference(judge=NOBODY), sample(text))
    assert (parts["preference"], parts["level"], parts["verdicts"]) == (0.0, -2.0, 0.0)


def test_the_references_own_words_are_a_tie_and_nobody_is_asked() -> None:
    parts = scored(Preference(judge=NOBODY), sample("<think>hm</think> you are paul"))
    assert (parts["preference"], parts["level"], parts["verdicts"]) == (0.5, 0.0, 0.0)


def test_another_reply_of_the_row_may_be_compared_with() -> None:
    with endpoint(prefers("paul")) as fake:
        reward = Preference(judge=fake.url, against="start", **VOTING)
        assert scored(reward, sample("no", start="paul"))["level"] == -1.0


@pytest.mark.parametrize(("abstain", "expected"), [("keep", 0.3), ("tie", 0.0)])
def test_what_an_abstention_counts_as_is_the_recipes(abstain: str, expected: float) -> None:
    def say(body: Body) -> list[tuple[str, float]]:
        first_wins = 0.9 if "A: yes" in shown(body) else 0.6  # levels 0.8, and 0.2 for the other reply
        return [("A", math.log(first_wins)), ("B", math.log(1 - first_wins))]

    with endpoint(say) as fake:
        parts = scored(Preference(judge=fake.url, abstain=abstain, timeout=60.0), sample("yes"))
    assert (parts["level"], parts["abstained"]) == (pytest.approx(expected), 1.0)


def test_an_abstention_may_fail_the_sample() -> None:
    with endpoint(lambda _: ["A"]) as fake:
        answer = scored(Preference(judge=fake.url, abstain="fail", **VOTING), sample("yes"))
    assert isinstance(answer, Failed)
    assert answer.kind == "abstained"


def test_a_judge_that_is_not_there_is_a_failure_never_a_number() -> None:
    for reward in (Preference(judge=NOBODY, retries=0), RubricScore(judge=NOBODY, retries=0)):
        answer = scored(reward, sample("yes"))
        assert isinstance(answer, Failed)
        assert answer.kind == "unavailable"


def test_a_row_without_a_reference_has_nothing_to_be_compared_with() -> None:
    answer = scored(Preference(judge=NOBODY), sample("yes", reference=""))
    assert isinstance(answer, Failed)
    assert "use RubricScore" in answer.message


def levels(body: Body) -> list[str]:
    """3 for what follows, 1 for all else."""
    return ["3" if "latest turn asks for" in shown(body) else "1"]


def test_a_rubric_is_a_mean_by_weight_of_what_judge_and_functions_say() -> None:
    with endpoint(levels) as fake:
        parts = scored(RubricScore(judge=fake.url, **VOTING), sample("you are paul"))
    # weights: follows 2, persona 1, coherence 1, faithful 2, safety 2, brevity 1
    assert parts["rubric"] == pytest.approx((2 * 1.0 + 1 * 1.0) / 9)
    assert (parts["follows"], parts["persona"], parts["brevity"]) == (1.0, 0.0, 1.0)
    assert (parts["verdicts"], parts["tokens"], parts["cached"]) == (5.0, 505.0, 0.0)


def test_levels_of_a_rubric_are_worth_what_the_recipe_says() -> None:
    with endpoint(lambda _: ["2"]) as fake:
        reward = RubricScore(judge=fake.url, phi={1: 0.0, 2: 0.1, 3: 1.0}, **VOTING)
        assert scored(reward, sample("you are paul"))["persona"] == pytest.approx(0.1)


def test_an_empty_reply_has_the_lowest_level_of_every_criterion() -> None:
    parts = scored(RubricScore(judge=NOBODY), sample("<think>"))
    assert (parts["rubric"], parts["brevity"], parts["verdicts"]) == (0.0, 0.0, 0.0)


def loud(sample: RewardInput) -> int:
    return 7


def test_a_function_that_gives_no_level_raises(tmp_path: Path) -> None:
    levels_ = {1: "no", 2: "yes"}
    criterion = {"name": "loud", "question": "?", "levels": levels_, "fn": f"{Path(__file__)}:loud"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"criteria": [criterion]}))
    reward = RubricScore(judge=NOBODY, rubric=str(tmp_path / "r.yaml"))
    with pytest.raises(ValueError, match="gave 7: a level from 1 to 2"):
        scored(reward, sample("yes"))


@pytest.mark.parametrize(
    ("change", "said"), [({"fn": "rewards.judge.checks:bravity"}, "brevity"), ({"kwargs": {"most": 3}}, "kwargs")]
)
def test_a_function_that_cannot_be_called_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    criterion = {"name": "short", "question": "?", "levels": {1: "no", 3: "yes"}, "fn": "rewards.judge.checks:brevity"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"criteria": [criterion | change]}))
    with pytest.raises(RecipeError, match=said):
        RubricScore(judge=NOBODY, rubric=str(tmp_path / "r.yaml"))


def test_what_is_spent_is_remembered_by_a_run_that_goes_on() -> None:
    with endpoint(prefers("paul")) as fake:
        spent = Preference(judge=fake.url, budget_tokens=202, **VOTING)
        scored(spent, sample("no"))
        resumed = Preference(judge=fake.url, budget_tokens=202, **VOTING)
        resumed.load_state_dict(spent.state_dict())
        answer = scored(resumed, sample("never heard"))
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.message) == ("budget", "budget_tokens is 202: 202 are spent; raise it")


def test_a_recipes_misspelt_keyword_is_refused_before_anything_is_made() -> None:
    config = RewardConfig(fn="rewards.judge:Preference", judge=NOBODY, kwargs={"vots": 3})
    with pytest.raises(RecipeError, match=r"rewards\[0\].kwargs.*vots"):
        check_rewards([config], Path())


def test_a_pool_judges_as_a_run_does() -> None:
    samples = [sample("paul is your name"), sample("i do not know"), sample("you are paul"), sample("")]
    with (
        endpoint(prefers("paul is")) as fake,
        RewardPool.of("rewards.judge:Preference", judge=fake.url, timeout=120.0, kwargs=VOTING) as pool,
    ):
        answers = pool.call(samples)
    # The second: neither is preferred, so what is shown second wins each time.
    assert [answer["level"] for answer in answers if isinstance(answer, dict)] == [1.0, 0.0, 0.0, -2.0]
