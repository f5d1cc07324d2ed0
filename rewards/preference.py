"""A learnt preference as a reward: a Bradley-Terry model that reads the tokens, so that no sound is decoded for it."""

from rewards.types import RewardInput
from rlhf_platform.types import Prompt


class TokenPreference:
    """The number that a reward model gives a completion; only differences for one prompt mean something.

    On codec tokens as in Step-Audio-EditX (2511.03601); the same class reads transcripts. `model`: the folder that a
    run with `type: reward_model` wrote. Raises `RecipeError` when it has none.
    """

    def __init__(self, model: str) -> None:
        from policies.reward_model import load_reward_model  # here, as torch takes seconds to import

        self._model = load_reward_model(model)

    def __call__(self, samples: list[RewardInput]) -> list[float]:
        return self._model.rewards([_prompt(sample) for sample in samples], [sample.tokens for sample in samples])


def _prompt(sample: RewardInput) -> Prompt:
    return Prompt(
        sample.prompt_id,
        sample.audio,
        sample.reference,
        sample.language,
        sample.speaker,
        sample.duration,
        sample.metadata,
    )
