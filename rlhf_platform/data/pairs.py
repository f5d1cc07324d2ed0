"""Judged answers: one JSON object per line, a prompt with two answers of which one was chosen, or one with a label.

docs/preferences.md is the page for users. Importing this file imports no torch. As in a manifest, all bad rows are
found before an error is raised, and a row is named by its line number.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from os.path import normpath, relpath
from pathlib import Path
from typing import Any

from rlhf_platform.data.manifest import Row, check_audio, kind_of, raise_if_any, text_problem
from rlhf_platform.errors import DataError
from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.preferences import KTO, RewardModel
from rlhf_platform.types import Prompt

_PROMPT = {"audio": "text", "text": "text", "language": "text", "duration": "number"}
"""Keys of the prompt that every row has: those of a manifest."""
_PROMPT_TOO = {"id": "text", "speaker": "text", "metadata": "object"}
_UNREAD = {"split": "text", "licence": "text", "sample_rate": "whole number"}
"""Keys of a manifest that a row may keep and nothing reads."""
_FORMS = ("", "_tokens", "_codec")
_JUDGED = {"margin": "number", "tie": "true/false", "label": "true/false"}


@dataclass(frozen=True)
class Answer:
    """A completion as a row states it. `tokens` count where they are given; the text is then for people."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    """Token ids of the backbone's vocabulary, end token included where there is one."""
    codec: tuple[int, ...] | None = None
    """Codec indices from 0, as a manifest's `metadata.codec`."""


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, of which one was chosen."""

    number: int
    """Line of the file, from 1."""
    prompt: Prompt
    chosen: Answer
    rejected: Answer
    margin: float = 0.0
    """How much better the chosen is, at least 0, in whatever unit it was judged."""
    tie: bool = False
    """Neither is better: which is called chosen says nothing."""


@dataclass(frozen=True)
class Opinion:
    """An answer that is good or bad by itself."""

    number: int
    prompt: Prompt
    completion: Answer
    label: bool


Judgement = Pair | Opinion


def read_pairs(path: str | Path, algorithm: AlgorithmConfig) -> list[Judgement]:
    """All rows, after the checks that need no decoding and no backbone: `algorithm` can learn from each, too.

    Raises one `DataError` that counts the bad rows and names the first ten, or says that there are no rows.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(f"{path}: no such file of pairs; name a JSONL file (docs/preferences.md)")
    found: list[Judgement] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse(path, number, line)
        problem = row if isinstance(row, str) else _unlearnt(row, algorithm)
        if problem or isinstance(row, str):
            problems.append((number, problem))
        else:
            found.append(row)
    problems += _two_clips_of_one_id(found)
    raise_if_any(path, problems, "cannot be used")
    if not found:
        raise DataError(f"{path}: empty: a file of pairs has one JSON object per line (docs/preferences.md)")
    return found


def write_pairs(path: str | Path, judgements: Iterable[Judgement]) -> None:
    """Write the rows as JSONL, with audio paths relative to the file; `read_pairs` gives them back."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(_as_json(j, path), ensure_ascii=False) + "\n" for j in judgements), "utf-8")


def check_clips(
    path: str | Path,
    judgements: Sequence[Judgement],
    window: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Decode every clip once, as `manifest.check_audio`, which says what is raised."""
    first = {j.prompt.audio: j for j in reversed(judgements)}
    check_audio([_as_row(Path(path), j) for j in sorted(first.values(), key=lambda j: j.number)], window, progress)


def opinions(judgements: Iterable[Judgement]) -> Iterator[Opinion]:
    """Each by itself: the chosen answer of a pair is good, the rejected bad."""
    for judgement in judgements:
        if isinstance(judgement, Opinion):
            yield judgement
        else:
            yield Opinion(judgement.number, judgement.prompt, judgement.chosen, True)
            yield Opinion(judgement.number, judgement.prompt, judgement.rejected, False)


def _parse(path: Path, number: int, line: bytes) -> Judgement | str:
    """The row, or what is wrong with it."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    if not isinstance(values, dict):
        return f"a row is a JSON object, not {kind_of(values)}"
    if problem := _prompt_problem(values) or _answers_problem(values):
        return problem
    audio = Path(normpath(path.parent / values["audio"]))
    if not audio.is_file():
        return f"audio {values['audio']!r} does not exist; paths are relative to the folder of the file"
    prompt = Prompt(
        id=values.get("id", str(Path(values["audio"]).with_suffix(""))),
        audio=str(audio),
        reference=values["text"],
        language=values["language"],
        speaker=values.get("speaker", ""),
        duration=float(values["duration"]),
        metadata=values.get("metadata", {}),
    )
    if "label" in values:
        return Opinion(number, prompt, _answer(values, "completion"), values["label"])
    chosen, rejected = _answer(values, "chosen"), _answer(values, "rejected")
    tie = values.get("tie", False)
    if chosen == rejected and not tie:
        return "chosen and rejected are the same answer; leave the row out"
    return Pair(number, prompt, chosen, rejected, float(values.get("margin", 0.0)), tie)


def _known() -> dict[str, str]:
    """Every key that a row may have, and what its value is."""
    answers = {
        name + form: "list" if form else "text" for name in ("chosen", "rejected", "completion") for form in _FORMS
    }
    return {**_PROMPT, **answers, **_JUDGED, **_PROMPT_TOO, **_UNREAD}


def _prompt_problem(values: Mapping[str, Any]) -> str | None:
    """The first thing wrong with the keys of a row, or with what makes the prompt."""
    known = _known()
    for key in values:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else f" ({', '.join(known)})")
    for key in _PROMPT:
        if key not in values:
            return f"no {key!r}; every row has {', '.join(_PROMPT)}, as in a manifest"
    for key, value in values.items():
        if kind_of(value) != known[key] and (kind_of(value), known[key]) != ("whole number", "number"):
            return f"{key} is {known[key]}, not {kind_of(value)} {value!r}"
    for key in ("audio", "language", "id"):
        if not values.get(key, "-").strip():
            return f"{key} is empty"
    if not (math.isfinite(values["duration"]) and values["duration"] > 0):
        return f"duration {values['duration']:g} s; it must be above 0"
    return text_problem(values["text"], values["language"], values.get("metadata", {}))


def _answers_problem(values: Mapping[str, Any]) -> str | None:
    """The first thing wrong with the answers and what was judged of them."""
    single = any("completion" + form in values for form in _FORMS) or "label" in values
    for name in ("completion",) if single else ("chosen", "rejected"):
        given = [name + form for form in _FORMS if name + form in values]
        if not given:
            return f"no {name!r}; a row has chosen and rejected, or completion and label"
        if name + "_codec" in given and len(given) > 1:
            return f"{' and '.join(given)} are given; give one of them"
        for key in given:
            if key != name and (not values[key] or any(type(item) is not int or item < 0 for item in values[key])):
                return f"{key} is a list of whole numbers, at least 0 each and one in all"
    if single:
        extra = [key for key in values if key.startswith(("chosen", "rejected")) or key in ("margin", "tie")]
        if extra:
            return f"{extra[0]} is a key of pairs; a row with completion and label has none"
        return None if "label" in values else "no 'label'; a row with completion says true (good) or false (bad)"
    margin = values.get("margin", 0.0)
    if not (math.isfinite(margin) and margin >= 0):
        return f"margin {margin:g}; it is how much better the chosen answer is, at least 0"
    return (
        "margin says that one is better, tie that none is; give one of them" if values.get("tie") and margin else None
    )


def _unlearnt(judgement: Judgement, algorithm: AlgorithmConfig) -> str:
    """Why the algorithm learns nothing from a row; "" when it does."""
    kind = algorithm.type
    if isinstance(judgement, Opinion):
        return "" if isinstance(algorithm, KTO) else f"completion and label are learnt by kto, {kind} learns from pairs"
    if not judgement.tie:
        return ""
    if isinstance(algorithm, RewardModel):
        way_out = "set it, to 0.69 for example, or leave the row out"
        return "" if algorithm.tie_threshold > 0 else f"tie is true, and algorithm.tie_threshold is 0; {way_out}"
    return f"tie is true: {kind} learns nothing from ties; leave the row out"


def _two_clips_of_one_id(judgements: Sequence[Judgement]) -> list[tuple[int, str]]:
    first: dict[str, Judgement] = {}
    problems = []
    for judgement in judgements:
        other = first.setdefault(judgement.prompt.id, judgement)
        if other.prompt != judgement.prompt:
            said = f"id {judgement.prompt.id!r} is that of row {other.number}, whose prompt is another"
            problems.append((judgement.number, f"{said}; give each prompt its own `id`"))
    return problems


def _answer(values: Mapping[str, Any], name: str) -> Answer:
    tokens, codec = (values.get(name + form) for form in _FORMS[1:])
    return Answer(values.get(name), None if tokens is None else tuple(tokens), None if codec is None else tuple(codec))


def _as_row(path: Path, judgement: Judgement) -> Row:
    """The prompt as a row of a manifest, to be checked as one."""
    prompt = judgement.prompt
    return Row(
        path,
        judgement.number,
        prompt.id,
        Path(prompt.audio),
        prompt.reference,
        prompt.language,
        prompt.speaker,
        prompt.duration,
        split="",
        licence="",
    )


def _as_json(judgement: Judgement, path: Path) -> dict[str, Any]:
    prompt = judgement.prompt
    values: dict[str, Any] = {
        "id": prompt.id,
        "audio": Path(relpath(prompt.audio, path.parent)).as_posix(),
        "text": prompt.reference,
        "language": prompt.language,
        "speaker": prompt.speaker,
        "duration": prompt.duration,
    }
    values |= {"metadata": dict(prompt.metadata)} if prompt.metadata else {}
    if isinstance(judgement, Opinion):
        return values | _stated("completion", judgement.completion) | {"label": judgement.label}
    values |= _stated("chosen", judgement.chosen) | _stated("rejected", judgement.rejected)
    values |= {"margin": judgement.margin} if judgement.margin else {}
    return values | ({"tie": True} if judgement.tie else {})


def _stated(name: str, answer: Answer) -> dict[str, Any]:
    keys = {"text": name, "tokens": f"{name}_tokens", "codec": f"{name}_codec"}
    return {keys[form]: value for form, value in asdict(answer).items() if value is not None}
