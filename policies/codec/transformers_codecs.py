"""Mimi (arXiv 2410.00037), DAC (2306.06546) and EnCodec (2210.13438), as Transformers has them. On the CPU."""

from typing import Any

import numpy as np
import torch
from transformers import DacModel, EncodecModel, MimiModel

from policies.codec.interface import Codec, CodecError, Codes, check_samples
from policies.codec.layout import check_codes
from rlhf_platform.types import Waveform

_MODELS: dict[str, Any] = {"mimi": MimiModel, "dac": DacModel, "encodec": EncodecModel}


class TransformersCodec(Codec):
    """A residual codec of one channel. The sound is padded with silence to whole frames."""

    def __init__(self, name: str, path: str, codebooks: int | None = None) -> None:
        """`codebooks`: use only the first, coarse ones. Raises `CodecError` if the checkpoint cannot be used."""
        self.name = name
        try:
            self.model = _MODELS[name].from_pretrained(path, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CodecError(f"codec {name!r}: {path!r} cannot be loaded: {reason}") from None
        config = self.model.config
        _check_plain(name, path, config)
        self.sample_rate = int(config.sampling_rate)
        self.hop = int(config.frame_size if name == "mimi" else config.hop_length)
        self.frame_rate = self.sample_rate / self.hop
        least = int(config.num_semantic_quantizers) if name == "mimi" else 1
        most = int(config.n_codebooks if name == "dac" else config.num_quantizers)
        if codebooks is not None and not least <= codebooks <= most:
            raise CodecError(
                f"codec {name!r}: codebooks is {codebooks}; {path!r} has {most}: {least} to {most} can be used"
            )
        self.codebooks = (int(config.codebook_size),) * (codebooks or most)

    def encode(self, samples: Waveform) -> Codes:
        check_samples(samples, self.hop)
        whole = torch.from_numpy(np.pad(samples, (0, -len(samples) % self.hop)))[None, None]
        with torch.inference_mode():
            if self.name == "encodec":
                found = self.model.encode(whole, bandwidth=self.model.config.target_bandwidths[-1]).audio_codes[0]
            else:
                found = self.model.encode(whole).audio_codes
        codes: Codes = found[0, : len(self.codebooks)].T.contiguous().numpy()
        return codes

    def decode(self, codes: Codes) -> Waveform:
        check_codes(codes, self.codebooks)
        given = torch.from_numpy(codes).T[None]
        with torch.inference_mode():
            if self.name == "encodec":
                found = self.model.decode(given[None], [None]).audio_values
            else:
                found = self.model.decode(audio_codes=given).audio_values
        samples: Waveform = found.reshape(-1).numpy()
        return samples.clip(-1, 1)


def _check_plain(name: str, path: str, config: Any) -> None:
    """Raises `CodecError` unless codes alone hold all of the sound."""
    if getattr(config, "audio_channels", 1) != 1:
        raise CodecError(f"codec {name!r}: {path!r} has {config.audio_channels} channels; name a checkpoint of one")
    if getattr(config, "normalize", False) or getattr(config, "chunk_length_s", None):
        raise CodecError(
            f"codec {name!r}: {path!r} keeps a loudness beside its codes or codes in chunks; name a checkpoint that "
            "does neither, such as the one for 24 kHz"
        )
