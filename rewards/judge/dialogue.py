"""What a judge is told of a sample."""

from rewards.judge.types import Exchange
from rewards.types import RewardInput
from rlhf_platform.data.dialogue import USER, Session, session_of, split_reply


def exchange_of(sample: RewardInput) -> Exchange:
    """The dialogue up to the reply. Raises `KeyError` for a row that is none (`metadata.said`)."""
    return exchange(session_of(sample.audio, sample.metadata))


def exchange(session: Session) -> Exchange:
    """A session as a judge sees it: no reasoning traces, no token ids."""
    clips = [turn.audio for turn in session.history if turn.role == USER] + [session.audio]
    history = tuple((turn.role, turn.text) for turn in session.history)
    return Exchange(session.persona, history, session.said, tuple(clip for clip in clips if clip))


def reply_of(sample: RewardInput) -> str:
    """The reply without its reasoning trace; "" for a trace that was never closed."""
    return split_reply(sample.text)[1]
