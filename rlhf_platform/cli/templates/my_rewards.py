"""Rewards of your own: plain functions of a sample that return a number. Try them: `python my_rewards.py`."""

from rewards.types import RewardInput


def brevity(sample: RewardInput, words_per_second: float = 5.0) -> float:
    """A penalty in [-1, 0] for more words than fit into the clip: 0 if they fit, -1 at twice as many.

    `sample` also has tokens, reference, language, speaker, audio (a path) and metadata (the manifest row's own).
    Raise when there is no answer: the sample is then left out and counted, which a 0 would not be.
    """
    if sample.duration <= 0:
        raise ValueError(f"prompt {sample.prompt_id} has no duration: add it to the manifest")
    fits = max(1.0, sample.duration * words_per_second)
    return max(min(1.0 - len(sample.text.split()) / fits, 0.0), -1.0)


if __name__ == "__main__":
    for text in ("press one", "press one press one press one press one"):
        print(f"{brevity(RewardInput('clip-1', text, duration=1.0)):+.2f}  {text}")
