"""How spoken dialogue is played in rollout; as in `schema.py`."""

from dataclasses import dataclass

from rlhf_platform.recipe.field import key


@dataclass
class DialogueConfig:
    """Turns of a session (`branch: realtime`)."""

    turns: int = key(1, at_least=1, at_most=64)
    """User turns that a rollout plays on from a prompt, at most: 1 answers the prompt alone; more let the user speak
    again after each reply, so that the policy has to live with what it said."""
    most_turns: int = key(8, at_least=1, at_most=256)
    """User turns that a prompt may hold, those of its history and of a session that is played on among them; the engine
    sets memory aside for their clips. A row with more is refused."""
    multi_turn: float = key(0.5, at_least=0.0, at_most=1.0)
    """Share of a step's prompts that are sessions of several turns, where `turns` is above 1; the others are answered
    once. A mixture keeps first answers from growing worse while sessions are learnt (StepAudio 2.5)."""
    session_weight: float = key(0.0, at_least=0.0, at_most=1.0)
    """What of a turn's reward is the mean over its session: 0 pays each turn for itself, 1 all turns alike for how the
    session went."""
    user: str = key("script", choices=("script", "llm"))
    """Who speaks the later turns: the `script` of the prompt's row, recorded beforehand; or an `llm`, `user_judge`,
    which answers what the policy said, in a synthetic voice."""
    user_judge: str = ""
    """The entry of `judges` that is asked for the user's words with `user: llm`."""
