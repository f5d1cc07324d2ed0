"""What a run that speaks needs before its actors start: texts that can be spoken, recordings as codec tokens, and a
backbone that knows what it speaks with."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from policies.codec.interface import Codec, CodecError
from policies.codec.load import load_codec
from policies.load import load_adapter
from policies.speaking import FILE, SPEAKING, SpeechLayout
from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.manifest import Row, raise_if_any
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.speech import SpeechConfig
from rlhf_platform.train.links import fingerprint, link, made_whole
from rlhf_platform.types import Prompt

SHORTEST_REFERENCE = 0.3
"""Seconds of a recording that answers are compared with."""
_SILENT = 1e-3
"""Loudest sample, of 1, of a recording in which nobody speaks."""


def codec_of(speech: SpeechConfig) -> Codec:
    """The codec of a recipe. Raises RecipeError when there is none."""
    try:
        return load_codec(speech.codec, speech.codec_path, speech.codebooks)
    except CodecError as error:
        raise RecipeError(f"speech.codec is {speech.codec}: {error}") from None


def layout_of(recipe: Recipe, characters: str | None) -> SpeechLayout:
    """How a policy of the recipe speaks."""
    speech, codec = recipe.speech, codec_of(recipe.speech)
    return SpeechLayout(
        codec.name,
        speech.codec_path,
        codec.codebooks,
        codec.frame_rate,
        speech.instructions,
        speech.shortest,
        speech.longest,
        characters,
    )


def check_texts(recipe: Recipe, rows: Sequence[Row]) -> None:
    """Every text can be spoken within `rollout.max_new_tokens`, and every recording is one of speech.

    Raises one DataError that names the bad rows.
    """
    speech, codec = recipe.speech, codec_of(recipe.speech)
    per_character = speech.longest * codec.frame_rate * len(codec.codebooks)
    longest = int(recipe.rollout.max_new_tokens / per_character)
    problems: list[tuple[int, str]] = []
    for row in rows:
        if not row.text.strip():
            problems.append((row.number, "text is empty; there is nothing to speak"))
        elif len(row.text) > longest:
            said = f"text has {len(row.text)} characters, at speech.longest={speech.longest:g} s each more than "
            said += f"rollout.max_new_tokens={recipe.rollout.max_new_tokens} tokens hold; allowed {longest}"
            problems.append((row.number, said))
        elif row.duration < SHORTEST_REFERENCE:
            problems.append((row.number, f"{row.audio} lasts {row.duration:g} s; speech of {SHORTEST_REFERENCE:g} s"))
        elif float(np.abs(load_audio(row.audio)).max(initial=0.0)) < _SILENT:
            problems.append((row.number, f"{row.audio} is silent; name a recording in which the text is spoken"))
    if problems:
        raise_if_any(rows[0].manifest, problems, "cannot be spoken")


def with_codec(recipe: Recipe, prompts: Sequence[Prompt], progress: Callable[[int], None]) -> list[Prompt]:
    """The prompts with their recordings as codec indices, `metadata["codec"]`, which are kept in `cache_dir`.

    Those that bring their own are left as they are. Raises DataError for a recording that cannot be encoded.
    """
    speech = recipe.speech
    missing = [prompt for prompt in prompts if "codec" not in prompt.metadata]
    folder = Path(recipe.cache_dir, "codec", _digest(speech))
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[int]] = {}
    encode = partial(_kept_tokens, speech, folder)
    workers = max(1, min(recipe.cluster.cpus, len(missing) // 64))
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        for prompt, tokens in zip(missing, pool.map(encode, [p.audio for p in missing], chunksize=16), strict=True):
            if isinstance(tokens, str):
                raise DataError(f"prompt {prompt.id}: {prompt.audio}: {tokens}")
            found[prompt.id] = tokens
            progress(len(found))
    return [
        replace(prompt, metadata={**prompt.metadata, "codec": found[prompt.id]}) if prompt.id in found else prompt
        for prompt in prompts
    ]


def speaking(recipe: Recipe, model: Path | str, texts: Sequence[str]) -> Path | str:
    """The checkpoint with what it speaks with beside it: itself if it says the same already.

    `texts`: what it is about to learn from, whose characters it then knows; none: nothing. Raises RecipeError when it
    has learnt to speak with another codec, has no codec tokens, or is of a layout that does not speak.
    """
    had = SpeechLayout.read(model)
    if recipe.backbone.adapter not in SPEAKING:
        allowed = ", ".join(SPEAKING)
        raise RecipeError(f"backbone.adapter is {recipe.backbone.adapter}: branch: tts takes one of {allowed}")
    characters = had.characters if had else None
    if texts and (characters is not None or recipe.backbone.path is None):  # what a large model knows is not known
        characters = "".join(sorted(set(characters or "").union(*texts)))
    wanted = layout_of(recipe, characters)
    if had == wanted:
        return model
    if had and (had.codec, had.codebooks) != (wanted.codec, wanted.codebooks):
        raise RecipeError(
            f"speech.codec is {wanted.codec} with {_sizes(wanted)} entries: {model} has learnt to speak with "
            f"{had.codec}, {_sizes(had)}; take that, or a backbone that has not"
        )
    if not Path(model).is_dir():
        raise RecipeError(f"backbone.path is {str(model)!r}: to learn to speak, name a folder; download it first")
    key = hashlib.sha256(json.dumps([str(model), fingerprint(model), asdict(wanted)]).encode()).hexdigest()[:16]
    path = Path(recipe.cache_dir, "speaking", key).resolve()
    if not path.is_dir():
        with made_whole(path) as draft:
            shutil.copytree(model, draft, copy_function=link, dirs_exist_ok=True)
            (draft / FILE).unlink(missing_ok=True)  # another name of the model's own file
            wanted.write(draft)
            load_adapter(recipe.backbone.adapter, draft).rule  # noqa: B018  # refuses a vocabulary that is too small
    return path


def hearing(recipe: Recipe, model: Path | str) -> Path | str:
    """The checkpoint without what it speaks with: itself if it has nothing of the kind.

    With it beside the weights every prompt would be answered in codec tokens.
    """
    if SpeechLayout.read(model) is None:
        return model
    key = hashlib.sha256(json.dumps([str(model), fingerprint(model)]).encode()).hexdigest()[:16]
    path = Path(recipe.cache_dir, "hearing", key).resolve()
    if not path.is_dir():
        with made_whole(path) as draft:
            shutil.copytree(model, draft, copy_function=link, dirs_exist_ok=True)
            (draft / FILE).unlink()
    return path


def _sizes(layout: SpeechLayout) -> str:
    return " + ".join(map(str, layout.codebooks))


@cache
def _codec(name: str, path: str | None, codebooks: int | None) -> Codec:
    return load_codec(name, path, codebooks)


def _kept_tokens(speech: SpeechConfig, folder: Path, audio: str) -> list[int] | str:
    """The recording's codec indices, or why there are none."""
    file = Path(audio).stat()
    key = hashlib.sha256(f"{audio} {file.st_size} {file.st_mtime_ns}".encode()).hexdigest()[:24]
    kept = folder / f"{key}.json"
    if kept.is_file():
        tokens: list[int] = json.loads(kept.read_text())
        return tokens
    try:
        tokens = _codec(speech.codec, speech.codec_path, speech.codebooks).tokens_of(load_audio(audio, SAMPLE_RATE))
    except CodecError as error:
        return str(error)
    draft = kept.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(tokens))
    draft.replace(kept)
    return tokens


def _one_thread() -> None:
    torch.set_num_threads(1)


def _digest(speech: SpeechConfig) -> str:
    """Of what decides the tokens: the codec, its weights where they come with the platform, and its code."""
    parts = [speech.codec, str(speech.codec_path), str(speech.codebooks)]
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in sorted(Path(__file__).parents[3].glob("policies/codec/*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
