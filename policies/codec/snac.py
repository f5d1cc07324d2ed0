"""SNAC (arXiv 2410.14411): levels of codes at different rates, on the CPU.

A coarse frame is laid out as one code of the coarsest level, each code followed by the finer ones of its time. With
strides of 4, 2 and 1 these are seven codes: a b c c b c c.
"""

from collections.abc import Sequence
from math import lcm
from pathlib import Path

import numpy as np
import torch
from snac import SNAC

from policies.codec.interface import Codec, CodecError, Codes, check_samples
from policies.codec.layout import check_codes
from rlhf_platform.types import Waveform

_SEED = 0
"""Of the noise that SNAC's decoder adds."""


class SnacCodec(Codec):
    """The sound is padded with silence to whole frames."""

    name = "snac"

    def __init__(self, path: str) -> None:
        """`path`: a folder with `config.json` and `pytorch_model.bin`, or a hub name. Raises `CodecError`."""
        if Path(path).is_dir() and not (missing := Path(path, "pytorch_model.bin")).is_file():
            raise CodecError(f"codec 'snac': no such file: {missing}; name the folder of a checkpoint, or its hub name")
        try:
            self.model = SNAC.from_pretrained(path).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise CodecError(f"codec 'snac': {path!r} cannot be loaded: {str(error).splitlines()[0]}") from None
        self.strides: list[int] = self.model.vq_strides
        self.places = places(self.strides)
        self.hop = int(self.model.hop_length) * self.strides[0]
        window = self.model.attn_window_size or 1
        self.together = lcm(self.strides[0], window) // self.strides[0]  # frames; its attention takes no fewer
        self.sample_rate = int(self.model.sampling_rate)
        self.frame_rate = self.sample_rate / self.hop
        self.codebooks = (int(self.model.codebook_size),) * len(self.places)

    def encode(self, samples: Waveform) -> Codes:
        check_samples(samples, self.hop)
        with torch.inference_mode():
            levels = [level[0].numpy() for level in self.model.encode(torch.from_numpy(samples)[None, None])]
        frames = -(-len(samples) // self.hop)  # without those that only the attention's window needs
        by_frame = [
            level.reshape(-1, self.strides[0] // stride) for level, stride in zip(levels, self.strides, strict=True)
        ]
        return np.stack([by_frame[level][:frames, place] for level, place in self.places], axis=1)

    def decode(self, codes: Codes) -> Waveform:
        check_codes(codes, self.codebooks)
        frames = len(codes)
        codes = np.pad(codes, ((0, -frames % self.together), (0, 0)), mode="edge")
        levels = [
            torch.from_numpy(codes[:, [k for k, (level, _) in enumerate(self.places) if level == wanted]]).reshape(
                1, -1
            )
            for wanted in range(len(self.strides))
        ]
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            samples: Waveform = self.model.decode(levels).reshape(-1).numpy()
        return samples[: frames * self.hop].clip(-1, 1)


def places(strides: Sequence[int], level: int = 0, place: int = 0) -> list[tuple[int, int]]:
    """(level, place in the level's codes of a frame) of each code of a frame, in order; depth first."""
    found = [(level, place)]
    if level + 1 < len(strides):
        finer = strides[level] // strides[level + 1]
        for child in range(place * finer, (place + 1) * finer):
            found += places(strides, level + 1, child)
    return found
