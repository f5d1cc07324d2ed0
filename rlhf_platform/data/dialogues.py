"""The demo data set `dialogue`: a home assistant with a persona, spoken to by synthetic voices in one to three turns.

docs/dialogue_data.md says what the set shows and what it does not.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import soundfile as sf

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.build import Stamp, build_once, key_of
from rlhf_platform.data.delivery import trim
from rlhf_platform.data.dialogue import ASSISTANT, USER
from rlhf_platform.data.dialogue_sessions import Pools, Talk, draw_talk, labelled_pairs, pools
from rlhf_platform.data.dialogue_texts import VOCABULARY, WORDS, Ask, flawed_reply, flaws_of, good_replies
from rlhf_platform.data.digits import GROUPS, SPEAKERS, Speaker
from rlhf_platform.data.labelled import write_labelled
from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.data.supervision import processes
from rlhf_platform.data.voices import speak
from rlhf_platform.errors import DataError

BUILDER_VERSION = "3"
"""Raise it with every change that alters a clip, a row or a pair; sets built before are then built anew."""

TRANSCRIPTS = "transcripts"
"""A split of its own."""
LABELLED = "judge.jsonl"
"""Labelled replies for judges, beside the manifest."""

LEARNT_VOICES = {"neural": 2, "seen": 8}
"""How often each group of speakers of `digits` speaks in what is learnt from."""
UNHEARD = 1 / 3
"""Share of the held-out sessions in which a voice speaks that speaks nowhere else."""

_RATES = (0.95, 1.25)  # drawn for each clip, times the voice's own rate
_PITCH_SPREAD = 8  # either way; espeak only
_PHRASE_WORDS = (1, 2, 3, 4)  # each as likely
_TRIES = 100


@dataclass(frozen=True)
class Plan:
    """What to build."""

    train: int = 1600
    """Rows of the split `train`, for supervised learning, of replies as people leave them: some good, some not."""
    rl: int = 400
    """Rows of the split `rl`; their references are good."""
    heldout: int = 300
    """Rows of the held-out split, whose dialogues are in no other."""
    flawed: float = 0.4
    """Share of the replies of `train` that have a flaw."""
    takes: int = 3
    """In how many ways a voice says one text; turns with the same text, voice and take share a clip."""
    transcripts: int = 120
    """Rows of the split `transcripts`: words in any order, to be written down. What the ASR branch is measured by."""
    phrases: float = 0.0
    """Share of the sessions of `train` that are words in any order instead. Every second one is to be written down as
    in `transcripts`, the others are a turn that the reply repeats: a model that learns from nothing has to hear that
    words stand by themselves, or it learns each sentence by heart."""
    pairs: Mapping[str, int] = field(default_factory=lambda: {"train": 3000, "calibration": 120, "heldout": 200})
    """Labelled pairs of each split."""
    seed: int = 0
    longest: float = 2.5
    """Seconds; no clip is longer."""


@dataclass(frozen=True)
class Clip:
    """A user's turn to be spoken."""

    text: str
    speaker: Speaker
    take: int

    @property
    def path(self) -> str:
        """Relative to the set's folder."""
        return f"clips/{self.speaker.name}/{self.text.replace(' ', '-')}-{self.take}.flac"


@dataclass(frozen=True)
class Spoken:
    """A session with its clips, one a user turn."""

    split: str
    number: int
    talk: Talk
    group: str
    """Of speakers."""
    clips: tuple[Clip, ...]
    heard: bool = False
    """Whether it is no turn to answer but words to write down."""


PRETRAINING = Plan(train=14_000, rl=48, heldout=120, flawed=0.2, takes=1_000, phrases=0.6, pairs={})
"""The set `exchanges`, which the shipped answering backbone has learnt from."""


def build_dialogues(
    out_dir: str | Path,
    plan: Plan = Plan(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Build the set in `out_dir` (16 kHz FLAC clips, manifest.jsonl, judge.jsonl) and return the manifest; half a
    minute.

    The same plan gives the same bits. A folder that holds the same build already is returned at once; the folder
    appears only when it is whole. `progress(done, total)` is called after each clip. Raises `DataError` if `out_dir`
    holds anything else, or a voice is not installed.
    """
    return build_once(out_dir, "dialogue", _stamp(plan), partial(_write_set, plan=plan, progress=progress))


def build_key(plan: Plan = Plan()) -> str:
    """Names a build: eight hex digits that change with the plan and the builder's version."""
    return key_of(_stamp(plan))


def sessions(plan: Plan) -> Iterator[Spoken]:
    """The sessions of the plan, each of whose turns is a row; the last of a split may be cut short."""
    learnt, held_out = pools(plan.seed)
    sizes = {"train": plan.train, "rl": plan.rl, "heldout": plan.heldout, TRANSCRIPTS: plan.transcripts}
    for split, size in sizes.items():
        number = rows = 0
        while rows < size:
            spoken = _session(plan, split, number, held_out if split == "heldout" else learnt, size - rows)
            yield spoken
            number, rows = number + 1, rows + len(spoken.clips)


def _stamp(plan: Plan) -> Stamp:
    return {"builder": BUILDER_VERSION, "plan": asdict(plan)}


def _session(plan: Plan, split: str, number: int, about: Pools, most: int) -> Spoken:
    """A session of at most `most` turns."""
    rng = random.Random(f"{plan.seed}/{split}/{number}")
    talk = draw_talk(rng, about)
    heard = split == TRANSCRIPTS
    if heard or (split == "train" and rng.random() < plan.phrases):
        phrase = " ".join(rng.choices(VOCABULARY, k=rng.choice(_PHRASE_WORDS)))
        talk, heard = Talk(talk.persona, (Ask(WORDS, words=phrase),)), heard or rng.random() < 0.5
    talk = replace(talk, asks=talk.asks[:most])
    group = rng.choices(list(LEARNT_VOICES), list(LEARNT_VOICES.values()))[0]
    if split in ("heldout", TRANSCRIPTS) and rng.random() < UNHEARD:
        group = "unseen"
    speaker = rng.choice(SPEAKERS[group])
    clips = tuple(Clip(ask.text, speaker, rng.randrange(plan.takes)) for ask in talk.asks)
    return Spoken(split, number, talk, group, clips, heard)


def _write_set(folder: Path, plan: Plan, progress: Callable[[int, int], None]) -> None:
    planned = list(sessions(plan))
    clips = list(dict.fromkeys(clip for spoken in planned for clip in spoken.clips))
    for name in sorted({clip.speaker.name for clip in clips}):
        (folder / "clips" / name).mkdir(parents=True)
    seconds: dict[Clip, float] = {}
    with processes() as pool:
        for clip, length in zip(clips, pool.map(partial(_write_clip, folder, plan), clips, chunksize=16), strict=True):
            seconds[clip] = length
            progress(len(seconds), len(clips))
    rows = [_row(folder, plan, spoken, turn, seconds) for spoken in planned for turn in range(len(spoken.clips))]
    write_manifest(folder / "manifest.jsonl", [replace(row, number=i) for i, row in enumerate(rows, start=1)])
    write_labelled(folder / LABELLED, labelled_pairs(plan.seed, plan.pairs))


def _write_clip(folder: Path, plan: Plan, clip: Clip) -> float:
    """The seconds that it lasts."""
    voice = clip.speaker.voice
    assert voice, "recorded speakers have said digits only"
    rng = random.Random(f"{plan.seed}/{clip.path}")
    for _ in range(_TRIES):
        rate, pitch = voice.rate * rng.uniform(*_RATES), voice.pitch + rng.randint(-_PITCH_SPREAD, _PITCH_SPREAD)
        samples = trim(speak(replace(voice, rate=rate, pitch=pitch), clip.text, SAMPLE_RATE, rng.randrange(2**31)))
        if len(samples) <= plan.longest * SAMPLE_RATE:
            sf.write(folder / clip.path, samples, SAMPLE_RATE, subtype="PCM_16")
            return len(samples) / SAMPLE_RATE
    raise DataError(f"dialogue: no clip of {clip.text!r} is shorter than {plan.longest:g} s; allow longer ones")


def _row(folder: Path, plan: Plan, spoken: Spoken, turn: int, seconds: Mapping[Clip, float]) -> Row:
    """The row that user turn `turn`, counted from 0, is to be answered in."""
    clip, ask, persona = spoken.clips[turn], spoken.talk.asks[turn], spoken.talk.persona
    name = f"{spoken.split}/{spoken.number:04d}/{turn + 1}"
    rng = random.Random(f"{plan.seed}/{name}/flaw")
    flaw = rng.choice(flaws_of(ask)) if spoken.split == "train" and rng.random() < plan.flawed else ""
    metadata: dict[str, Any] = {"group": GROUPS[spoken.group], "kind": ask.kind}
    if not spoken.heard:
        metadata |= {
            "session": name.rpartition("/")[0],
            "persona": persona.text,
            "said": ask.text,
            "reasoning": ask.text,
            "flaw": flaw,
            "history": _history(spoken, turn),
        }
    text = flawed_reply(persona, ask, flaw, rng) if flaw else good_replies(persona, ask)[0]
    if spoken.heard:
        text = ask.text
    if turn == 0 and spoken.split != "train" and len(spoken.clips) > 1:
        metadata["next"] = _coming(spoken)
    return Row(
        manifest=folder / "manifest.jsonl",
        number=1,
        id=name,
        audio=folder / clip.path,
        text=text,
        language="en",
        speaker=clip.speaker.name,
        duration=seconds[clip],
        split=spoken.split,
        licence=clip.speaker.licence,
        sample_rate=SAMPLE_RATE,
        metadata=metadata,
    )


def _history(spoken: Spoken, turn: int) -> Sequence[Mapping[str, Any]]:
    turns = []
    for clip, ask in zip(spoken.clips[:turn], spoken.talk.asks, strict=False):
        reply = good_replies(spoken.talk.persona, ask)[0]
        turns.append({"role": USER, "audio": clip.path, "text": ask.text})
        turns.append({"role": ASSISTANT, "text": reply, "reasoning": ask.text})
    return turns


def _coming(spoken: Spoken) -> Sequence[Mapping[str, Any]]:
    """The user turns after the first."""
    later = zip(spoken.clips[1:], spoken.talk.asks[1:], strict=True)
    persona = spoken.talk.persona
    return [{"audio": clip.path, "text": ask.text, "reference": good_replies(persona, ask)[0]} for clip, ask in later]
