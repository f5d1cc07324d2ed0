"""Who speaks the later turns of a run's sessions."""

import os
from pathlib import Path

from rlhf_platform.data.simulator import LLMUser, ScriptedUser
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.judging.judges import Judges
from rlhf_platform.train.sessions import User


def user_of(recipe: Recipe, judges: Judges) -> User | None:
    """None where every prompt is answered once."""
    dialogue = recipe.dialogue
    if recipe.branch != "realtime" or dialogue.turns == 1:
        return None
    if dialogue.user == "script":
        return ScriptedUser()
    asked = judges.keywords()[dialogue.user_judge]
    return LLMUser(
        asked["judge"],
        judges.model(dialogue.user_judge),
        os.environ.get(asked.get("api_key_env", ""), ""),
        Path(recipe.cache_dir, "users").resolve(),
        longest=recipe.backbone.window,
    )
