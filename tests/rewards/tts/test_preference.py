"""The preference reward is the reward model's own number, as a recipe's plug-in gives it."""

from pathlib import Path

import pytest
import torch

from policies.load import load_adapter
from policies.reward_model import RewardModel
from rewards.plugin import check_rewards, load_reward, terms_of
from rewards.preference import TokenPreference
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS

PROMPTS = [Prompt("a", "", "alpha bravo", "en"), Prompt("b", "", "charlie", "en")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardModel, Path]:
    folder = tmp_path_factory.mktemp("preference")
    LAYOUTS["codec_llama"].build(folder / "start", True)
    adapter = load_adapter("codec_lm", folder / "start")
    model = RewardModel(adapter, adapter.load_model(torch.float32), seed=0).eval()
    model.save("codec_lm", folder / "saved")
    return model, folder / "saved"


def test_it_is_the_reward_model_called_directly(model: tuple[RewardModel, Path]) -> None:
    called, folder = model
    codec = called.adapter.completion_token_ids
    asked = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    completions = [codec[:3], codec[2:7], codec[5:6]]
    expected = called.rewards(asked, completions)
    samples = [
        RewardInput(prompt.id, "", tokens=tuple(tokens), reference=prompt.reference)
        for prompt, tokens in zip(asked, completions, strict=True)
    ]
    (term,) = terms_of([RewardConfig(fn="rewards.preference:TokenPreference", kwargs={"model": str(folder)})], Path())
    check_rewards([term.config], Path())
    reward = load_reward(term)
    assert reward.batched
    assert reward.fn(samples) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) == 3


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no reward model in it"):
        TokenPreference(str(tmp_path))
