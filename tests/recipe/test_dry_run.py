from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.recipe.dry_run import dry_run_overrides
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.validate import problems


@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 9), st.integers(1, 4))
def test_a_dry_run_has_the_fewest_prompts_from_two_that_every_worker_shares(
    rollouts: int, learners: int, group: int, minibatches: int
) -> None:
    recipe = Recipe(name="a")
    recipe.rollout.workers, recipe.learner.workers = rollouts, learners
    recipe.algorithm = replace(recipe.algorithm, group_size=group, minibatches=minibatches)
    (said,) = [text for text in dry_run_overrides(recipe) if text.startswith("rollout.prompts_per_step=")]
    prompts = int(said.partition("=")[2])
    fits = [n for n in range(2, 200) if n % rollouts == 0 and n * group % (learners * minibatches) == 0]
    assert prompts == fits[0]


def test_a_dry_run_takes_one_step_after_at_most_one_of_the_warm_start() -> None:
    recipe = Recipe(name="a")
    recipe.sft.steps = 500
    overrides = dry_run_overrides(recipe)
    assert {"name=a-dry-run", "steps=1", "align.steps=0", "sft.steps=1", "evaluation.max_clips=2"} <= set(overrides)


RECIPES = sorted((Path(__file__).parents[2] / "recipes/asr").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_dry_run_of_a_recipe_that_is_valid_is_valid(recipe: Path) -> None:
    overrides = dry_run_overrides(load_recipe(recipe).recipe)
    assert problems(load_recipe(recipe, overrides)) == []


def test_a_dry_run_of_what_makes_pairs_takes_no_step_and_keeps_whatever_pair_there_is() -> None:
    path = Path(__file__).parents[2] / "recipes" / "tts" / "pairs.yaml"
    loaded = load_recipe(path, dry_run_overrides(load_recipe(path).recipe))
    assert problems(loaded) == []
    assert (loaded.recipe.steps, loaded.recipe.algorithm.prompts, loaded.recipe.algorithm.margin) == (0, 2, 0.0)  # type: ignore[attr-defined]
