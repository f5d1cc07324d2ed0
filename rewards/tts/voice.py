"""Whether it is the voice that was asked for."""

from rewards.scorers.speaker import cosine, embedding, reference_embedding
from rewards.tts.sound import audible, reference_of
from rewards.types import RewardInput


def similarity(sample: RewardInput) -> dict[str, float]:
    """`cosine` of the voice and the reference's, 0 to 1, and `reward`, (1 + cosine) / 2 as in GLM-TTS.

    The reference is the recording at `metadata["reference_voice"]`, else the prompt's own. Raises `ValueError` for
    silence, for less than 0.1 s, without sound, and for a reference that is silent or shorter than 0.5 s; `DataError`
    for one that cannot be read.
    """
    speech = audible(sample)
    path = sample.metadata.get("reference_voice") or reference_of(sample)
    found = cosine(embedding(speech), reference_embedding(str(path)))
    return {"cosine": found, "reward": (1 + found) / 2}
