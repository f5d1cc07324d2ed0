"""Train the network of the codec `world` and write its weights.

    python -m policies.codec.train_world OUT.safetensors

The same seed gives the same weights on the same machine: everything is drawn from it, on one thread. Some twenty
minutes on a core. The SHA-256 that it prints belongs into `policies.codec.world`.
"""

import argparse
import hashlib
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from policies.codec.codebook_fit import CodebookFit
from policies.codec.features import APERIODICITY, CEPSTRA, FRAME, LOG_F0, SILENCE, VOICED
from policies.codec.training_speech import Corpus, build_corpus, crops
from policies.codec.world_net import LATENT, ROWS, WorldNet
from rlhf_platform.data.audio import SAMPLE_RATE

MINUTES = 75
"""Of synthetic speech."""
BATCH, FRAMES = 16, 50
"""Crops of two seconds."""
UNQUANTISED = 250
"""Steps before the codebooks come in, with a little noise in their stead."""
NOISE = 0.02
RATE, WARM_UP = 1.5e-3, 50
COMMITMENT = 0.25
F0_WEIGHT, VOICING_WEIGHT, APERIODICITY_WEIGHT = 5.0, 0.7, 0.05
MEASURED = 5
"""Minutes of each voice that the sharpness is measured on."""
_FLOOR = math.log(SILENCE)
_HEARD = -14.0  # nats, of the mean log power: speech, not the silence between


def set_scale(net: WorldNet, corpus: Corpus) -> None:
    """Normalise by the corpus. Small cepstra keep a small scale: they are heard less."""
    features = np.concatenate([corpus.recorded, corpus.synthetic])
    mean, spread = features.mean(0), features.std(0)
    spread[:CEPSTRA] = np.maximum(spread[:CEPSTRA], 0.3)
    spread[LOG_F0], mean[VOICED], spread[VOICED] = 0.3, 0.5, 1.0
    net.mean.copy_(torch.from_numpy(mean))
    net.spread.copy_(torch.from_numpy(spread))


def distance(features: Tensor, found: Tensor) -> Tensor:
    """How far `found`, as the network answers, is from features (B, N, WIDTH).

    Log-spectral distance in nats, where it is loud more than where it is silent; errors of log F0 and aperiodicity
    where there is voice, and of voicing.
    """
    apart, voiced = found - features, features[..., VOICED]
    heard = 0.2 + 0.8 * ((features[..., 0] - _FLOOR - 1.5) / 6).clamp(0, 1)
    spectral = (heard * (apart[..., :CEPSTRA].square().sum(-1) + 1e-4).sqrt()).mean()
    of_voice = (apart.abs() * voiced.unsqueeze(-1)).sum((0, 1)) / (voiced.sum() + 1)
    voicing = F.binary_cross_entropy_with_logits(found[..., VOICED], voiced)
    return (
        spectral
        + F0_WEIGHT * of_voice[LOG_F0]
        + VOICING_WEIGHT * voicing
        + APERIODICITY_WEIGHT * of_voice[APERIODICITY]
    )


def train(corpus: Corpus, steps: int, seed: int) -> WorldNet:
    """Straight-through gradients past the quantiser, cosine decay of the rate."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = WorldNet()
    set_scale(net, corpus)
    fit = CodebookFit(net.quantizer, BATCH * FRAMES)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.8, 0.98), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
    )
    started, losses = time.monotonic(), []
    for step in range(steps):
        features = torch.from_numpy(crops(corpus, BATCH, FRAMES * ROWS, rng))
        latents = net.latents(features)
        if step < UNQUANTISED:
            loss = distance(features, net.features(latents + NOISE * torch.randn_like(latents)))
        else:
            if step == UNQUANTISED:
                with torch.no_grad():
                    fit.start(torch.cat([_latents(net, corpus, rng) for _ in range(12)]))
            loss = _quantised_loss(net, fit, features, latents)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: loss {np.mean(losses[-250:]):.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return net


def _quantised_loss(net: WorldNet, fit: CodebookFit, features: Tensor, latents: Tensor) -> Tensor:
    flat = latents.flatten(0, 1)
    with torch.no_grad():
        codes = net.quantizer.codes_of(flat)
        coded = net.quantizer.latents_of(codes)
    fit.update(flat.detach(), codes)
    through = flat + (coded - flat).detach()
    commitment = (flat - coded).square().sum(-1).mean()
    return distance(features, net.features(through.view_as(latents))) + COMMITMENT * commitment


def _latents(net: WorldNet, corpus: Corpus, rng: np.random.Generator) -> Tensor:
    return net.latents(torch.from_numpy(crops(corpus, BATCH, FRAMES * ROWS, rng))).reshape(-1, LATENT)


@torch.no_grad()
def set_sharpness(net: WorldNet, corpus: Corpus) -> None:
    """How much more each cepstrum but the loudness varies in speech than as it is decoded: geometric mean of voices."""
    ratios = []
    for features in map(torch.from_numpy, (corpus.recorded, corpus.synthetic)):
        frames = min(len(features), MEASURED * 60 * SAMPLE_RATE // FRAME) // ROWS
        speech = features[: frames * ROWS]
        codes = net.quantizer.codes_of(net.latents(speech[None])[0])
        found = net.features(net.quantizer.latents_of(codes)[None])[0]
        heard = speech[:, 0] > _HEARD
        ratios.append(speech[heard].std(0) / found[heard].std(0))
    net.sharpness.copy_(torch.stack(ratios).log().mean(0).exp()[:CEPSTRA])
    net.sharpness[0] = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of synthetic speech")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = build_corpus(arguments.minutes, arguments.seed)
    net = train(corpus, arguments.steps, arguments.seed).half().float()  # as it is stored
    set_sharpness(net, corpus)
    content = save({name: values.half().contiguous() for name, values in net.state_dict().items()})
    arguments.out.write_bytes(content)
    print(f"{arguments.out}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
