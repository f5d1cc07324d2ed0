"""The metrics of an evaluation of each branch, as its own reader gives them."""

from pathlib import Path

import numpy as np
import pytest

from rlhf_platform.errors import RunError
from rlhf_platform.evaluation.dialogue import write_dialogue
from rlhf_platform.evaluation.measured import Measured, read_measured, write_scores
from rlhf_platform.evaluation.speech import write_speech
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, Sounds, StopReason
from tests.runs import BEFORE, REFERENCES, evaluation


def answered(prompt: Prompt, text: str, outcome: Scored | Failed) -> ScoredSample:
    return ScoredSample(Sample(prompt, (1,), (-1.0,), text, StopReason.EOS, 0), outcome)


def test_of_transcripts_errors_and_words_and_the_scores_that_came_out(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no evaluation\.json"):
        read_measured(tmp_path, "asr")
    (tmp_path / "evaluation.json").write_text(evaluation(BEFORE, "evaluation").to_json())
    errors = [1.0, 0.0, 1.0, 2.0]  # of tests.runs.BEFORE, by eye
    words = [float(len(text.split())) for text in REFERENCES]
    wer = {f"clip-{i}": pair for i, pair in enumerate(zip(errors, words, strict=True))}
    assert read_measured(tmp_path, "asr").columns == {"wer": wer}
    prompts = [Prompt(f"clip-{i}", "", text, "en") for i, text in enumerate(REFERENCES)]
    outcomes = [Scored(1.0, {"cer": 0.25}), Failed("timeout", "", "cer"), Scored(1.0, {"cer": 0.5})]
    write_scores(tmp_path, [answered(p, "", o) for p, o in zip(prompts, outcomes, strict=False)])
    found = read_measured(tmp_path, "asr")
    assert found.columns == {"wer": wer, "cer": {"clip-0": (0.25, 1.0), "clip-2": (0.5, 1.0)}}
    assert found.sessions == {}
    assert Measured.from_json(found.to_json()) == found


def test_of_speech_the_scores_and_what_did_not_come_out(tmp_path: Path) -> None:
    prompts = [Prompt(name, str(tmp_path / "a.wav"), "red", "en") for name in ("a", "b")]
    scored = [
        answered(prompts[0], "", Scored(0.75, {"cer.cer": 0.5})),
        answered(prompts[1], "", Failed("silent", "", "cer")),
    ]
    write_speech(tmp_path, "evaluation", scored, Sounds.of([np.full(1_600, 0.1, np.float32), "no tokens"]))
    found = read_measured(tmp_path, "tts").columns
    assert found["cer.cer"] == {"a": (0.5, 1.0)}
    assert found["quality"] == {"a": (0.75, 1.0)}
    assert found["ended"] == {"a": (1.0, 1.0), "b": (0.0, 1.0)}
    assert found["unscored"] == {"a": (0.0, 1.0), "b": (1.0, 1.0)}


def test_of_dialogues_the_sessions_too(tmp_path: Path) -> None:
    rows = [("a", "yes"), ("a#2", "I cannot help with that"), ("b", "no")]
    scored = [
        answered(
            Prompt(name, str(tmp_path / "a.wav"), "yes", "en", metadata={"persona": "", "said": "well", "history": []}),
            text,
            Scored(0.5, {"facts.kept": 1.0}),
        )
        for name, text in rows
    ]
    write_dialogue(tmp_path, "evaluation", scored)
    found = read_measured(tmp_path, "realtime")
    assert found.columns["facts.kept"] == dict.fromkeys(("a", "a#2", "b"), (1.0, 1.0))
    assert set(found.columns) >= {"facts.kept", "quality", "ended", "unscored", "evasive"}
    assert found.sessions == {"a": "a", "a#2": "a", "b": "b"}
