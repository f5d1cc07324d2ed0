"""Training of the embedded codec: its parts by hand, and a few steps of the whole."""

import random

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from policies.codec import train_world
from policies.codec.codebook_fit import DECAY, CodebookFit
from policies.codec.features import APERIODICITY, CEPSTRA, LOG_F0, SILENCE, VOICED, WIDTH, analyse
from policies.codec.training_speech import Corpus, varied
from policies.codec.training_texts import sentence
from policies.codec.world_net import LATENT, ResidualQuantizer, WorldNet
from rlhf_platform.types import Waveform


def test_codes_are_the_nearest_entries_of_what_is_left() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer((5, 4))
    for number in range(2):
        quantizer.book(number).normal_()
    latents = torch.randn(20, LATENT)
    codes = quantizer.codes_of(latents)
    for latent, (first, second) in zip(latents.numpy(), codes.tolist(), strict=True):
        books = [quantizer.book(number).numpy() for number in range(2)]
        assert first == np.square(latent - books[0]).sum(-1).argmin()
        assert second == np.square(latent - books[0][first] - books[1]).sum(-1).argmin()
    expected = quantizer.book(0)[codes[:, 0]] + quantizer.book(1)[codes[:, 1]]
    torch.testing.assert_close(quantizer.latents_of(codes), expected)


def test_books_start_as_k_means() -> None:
    """The error is that of scikit-learn's, give or take a tenth."""
    torch.manual_seed(0)
    latents = torch.randn(2000, LATENT)
    quantizer = ResidualQuantizer((16,))
    CodebookFit(quantizer, 100).start(latents)
    error = (latents - quantizer.latents_of(quantizer.codes_of(latents))).square().sum()
    expected = KMeans(16, n_init=1, random_state=0).fit(latents.numpy()).inertia_
    assert float(error) == pytest.approx(expected, rel=0.1)


def test_an_entry_moves_towards_what_it_coded_and_an_unused_one_to_where_something_is() -> None:
    quantizer = ResidualQuantizer((2,))
    fit = CodebookFit(quantizer, 4)
    quantizer.book(0)[1] = 100.0
    fit.counts, fit.sums = [torch.tensor([3.0, 0.05])], [torch.stack([torch.zeros(LATENT), torch.full((LATENT,), 5.0)])]
    latents = torch.ones(4, LATENT)
    fit.update(latents, torch.zeros(4, 1, dtype=torch.long))
    weight = 4 * (1 - DECAY)
    expected = torch.full((LATENT,), weight / (3 * DECAY + weight))
    torch.testing.assert_close(quantizer.book(0)[0], expected)
    torch.testing.assert_close(quantizer.book(0)[1], torch.ones(LATENT))


def test_louder_features_are_those_of_louder_speech(held_out: list[Waveform]) -> None:
    clip = 0.3 * held_out[0] / np.abs(held_out[0]).max()
    before, after = analyse(clip), analyse(2 * clip)
    found = varied(before, 0.0, 20 * np.log10(2))
    loud = before[:, 0] > -13
    np.testing.assert_allclose(found[loud, 0], after[loud, 0], atol=0.15)
    np.testing.assert_array_equal(found[:, 1:], before[:, 1:])


def test_silence_stays_silent_when_it_is_made_louder() -> None:
    silence = analyse(np.zeros(4000, np.float32))
    for decibels in (-12.0, 8.0):
        np.testing.assert_allclose(varied(silence, 0.0, decibels)[:, 0], np.log(SILENCE), rtol=1e-6)


def test_pitch_is_varied_by_its_factor(held_out: list[Waveform]) -> None:
    before = analyse(held_out[0])
    found = varied(before, float(np.log(1.3)), 0.0)
    np.testing.assert_allclose(np.exp(found[:, LOG_F0]), 1.3 * np.exp(before[:, LOG_F0]), rtol=1e-5)


def test_distance_by_hand() -> None:
    features = torch.zeros(1, 2, WIDTH)
    features[0, 0, VOICED] = 1
    found = features.clone()
    found[..., VOICED] = torch.tensor([50.0, -50.0])  # sure of what is so
    surely = train_world.distance(features, found)
    assert float(surely) == pytest.approx(0.01, abs=1e-6)  # as loud as can be; what keeps the root smooth
    found[0, :, 3] += 3.0
    found[0, :, 4] += 4.0
    assert float(train_world.distance(features, found)) == pytest.approx(5.0, abs=1e-4)
    found[..., :CEPSTRA] = 0
    found[0, 1, LOG_F0] += 9.0  # unvoiced: neither counts
    found[0, 1, APERIODICITY] += 9.0
    torch.testing.assert_close(train_world.distance(features, found), surely)
    found[0, 0, LOG_F0] += 0.1
    half = 0.1 * train_world.F0_WEIGHT / 2  # a voiced row, and one for safety
    assert float(train_world.distance(features, found) - surely) == pytest.approx(half, rel=1e-4)


def test_texts_are_drawn_from_the_seed_and_vary() -> None:
    texts = [sentence(random.Random(seed)) for seed in range(200)]
    assert texts == [sentence(random.Random(seed)) for seed in range(200)]
    assert len(set(texts)) > 150
    assert all(text[-1] in ".,!?" and text[:-1].replace(",", "").replace(" ", "").isalpha() for text in texts)


def test_the_same_seed_gives_the_same_weights_and_learns(
    held_out: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_world, "UNQUANTISED", 20)
    monkeypatch.setattr(train_world, "BATCH", 4)
    speech = np.concatenate([analyse(clip) for clip in held_out])
    corpus = Corpus(speech, speech)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        nets = [train_world.train(corpus, 25, seed=0) for _ in range(2)]
        start = WorldNet()
        train_world.set_scale(start, corpus)
        features = torch.from_numpy(speech[: len(speech) // 8 * 8])[None]
        with torch.no_grad():
            found = [net.features(net.latents(features)) for net in (start, nets[0])]
        losses = [float(train_world.distance(features, each)) for each in found]
    finally:
        torch.set_num_threads(threads)
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first if name != "sharpness")
    assert losses[1] < 0.85 * losses[0]


def test_sharpened_cepstra_vary_as_those_of_speech(held_out: list[Waveform]) -> None:
    """Scaled about the mean, and no further."""
    torch.manual_seed(0)
    speech = np.concatenate([analyse(clip) for clip in held_out])
    speech = speech[: len(speech) // 8 * 8]
    net, corpus = WorldNet(), Corpus(speech, speech)
    train_world.set_scale(net, corpus)
    for number, size in enumerate(net.quantizer.sizes):
        net.quantizer.book(number).copy_(torch.randn(size, LATENT))
    train_world.set_sharpness(net, corpus)
    with torch.no_grad():
        codes = net.quantizer.codes_of(net.latents(torch.from_numpy(speech)[None])[0])
        plain = net.features(net.quantizer.latents_of(codes)[None])
        sharp = net.sharpen(plain)[0].numpy()
    heard = speech[:, 0] > -14
    np.testing.assert_allclose(sharp[heard, 1:CEPSTRA].std(0), speech[heard, 1:CEPSTRA].std(0), rtol=0.01)
    np.testing.assert_allclose(sharp[:, 0], plain[0, :, 0], rtol=1e-5)
    np.testing.assert_array_equal(sharp[:, CEPSTRA:], plain[0, :, CEPSTRA:])
