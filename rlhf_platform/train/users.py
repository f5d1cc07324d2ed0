"""Who speaks the later turns of a run's sessions."""

import os
from collections.abc import Mapping
from pathlib import Path

from rlhf_platform.data.simulator import LLMUser, ScriptedUser
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.sessions import User


def user_of(recipe: Recipe, judges: Mapping[str, Mapping[str, str]]) -> User | None:
    """None where every prompt is answered once. `judges`: as `train.judges.Judges.keywords`."""
    dialogue = recipe.dialogue
    if recipe.branch != "realtime" or dialogue.turns == 1:
        return None
    if dialogue.user == "script":
        return ScriptedUser()
    asked = judges[dialogue.user_judge]
    served = next(judge.model for judge in recipe.judges if judge.name == dialogue.user_judge)
    return LLMUser(
        asked["judge"],
        asked.get("model", served),
        os.environ.get(asked.get("api_key_env", ""), ""),
        Path(recipe.cache_dir, "users").resolve(),
        longest=recipe.backbone.window,
    )
