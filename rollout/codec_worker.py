"""The codec as a Ray actor of its own: a shell around `SpeechDecoder`."""

import time
from collections.abc import Sequence

import ray
import torch

from policies.codec.decoder import SpeechDecoder
from policies.codec.load import load_codec
from policies.load import load_adapter
from policies.speaking import Speaking
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Sample, Sounds


@ray.remote
class CodecWorker:
    """Makes sound of what a policy wrote, once for all rewards."""

    def __init__(self, recipe: Recipe, model: str) -> None:
        torch.set_num_threads(max(1, int(recipe.speech.cpus)))
        self._recipe, self._model = recipe, model

    def start(self) -> None:
        """Load the codec. Raises RecipeError when it is not the one that the checkpoint speaks with."""
        speech = self._recipe.speech
        adapter = load_adapter(self._recipe.backbone.adapter, self._model)
        if not isinstance(adapter, Speaking):
            raise RecipeError(f"backbone.path is {self._model!r}: it does not speak; train it with branch: tts first")
        codec = load_codec(speech.codec, speech.codec_path, speech.codebooks)
        self._decoder = SpeechDecoder(adapter, codec)

    @ray.method(num_returns=2)
    def decode(self, samples: Sequence[Sample]) -> tuple[Sounds, dict[str, float]]:
        """What they sound like, which stays in the object store, and what that took."""
        decoder, started = self._decoder, time.perf_counter()
        before = decoder.decoded, decoder.remembered
        sounds = decoder.decode(samples)
        return sounds, {
            "seconds/codec_work": time.perf_counter() - started,
            "codec_decoded": float(decoder.decoded - before[0]),
            "codec_remembered": float(decoder.remembered - before[1]),
            "codec_failed": float(len(sounds.failures)),
            "codec_audio_seconds": len(sounds.buffer) / 16_000,
        }
