"""Weights & Biases, offline unless the recipe says otherwise."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlhf_platform.data.audio import load_audio
from rlhf_platform.errors import ClusterError
from rlhf_platform.evaluation.dialogue import DialogueResult
from rlhf_platform.evaluation.report import EvalResult, spread
from rlhf_platform.recipe.schema import TrackingConfig
from rlhf_platform.types import Failed, Prompt, Scored, ScoredSample, Sounds

SAMPLE_RATE = 16_000


class WandbLog:
    """A W&B run in the run's folder; does nothing when `tracking.wandb` is off."""

    def __init__(self, config: TrackingConfig, name: str, folder: Path, recipe: Mapping[str, Any], run_id: str) -> None:
        """`run_id`: the same when a run goes on, so that W&B lays its parts together."""
        self.id = run_id
        self._run: Any = None
        self._rows = config.table_rows
        if config.wandb == "off":
            return
        # Quiet, and nothing sent that was not asked for (law 10).
        os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_CODE": "true"}
        # A table's audio waits here to be synced; by default in the home folder, apart from its run.
        os.environ["WANDB_DATA_DIR"] = str(folder / "wandb" / "data")
        import wandb

        mode: Literal["offline", "online"] = "online" if config.wandb == "online" else "offline"

        try:
            self._run = wandb.init(
                project=config.project,
                name=name,
                id=run_id,
                resume="allow",
                dir=str(folder),
                mode=mode,
                config=dict(recipe),
                settings=wandb.Settings(x_disable_stats=True, disable_git=True, console="off"),
            )
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            raise ClusterError(
                f"tracking.wandb is {config.wandb}: {error}; log in with `wandb login`, or set offline or off"
            ) from None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if self._run:
            self._run.log(dict(values), step=step)

    def samples(self, step: int, name: str, samples: Sequence[ScoredSample]) -> None:
        """A table of playable audio, transcript, hypothesis and reward parts, evenly spread over `samples`."""
        if not self._run or not self._rows or not samples:
            return
        import wandb

        shown = spread(samples, self._rows)
        terms = sorted({term for s in shown if not isinstance(s.outcome, Failed) for term in s.outcome.parts})
        table = wandb.Table(
            columns=["prompt", "speaker", "audio", "transcript", "hypothesis", "reward", *terms, "failure"]
        )
        for scored in shown:
            sample, outcome = scored.sample, scored.outcome
            audio = wandb.Audio(load_audio(sample.prompt.audio, SAMPLE_RATE), sample_rate=SAMPLE_RATE)
            row: list[Any] = [
                sample.prompt.id,
                sample.prompt.speaker,
                audio,
                sample.prompt.reference,
                sample.text,
            ]
            if isinstance(outcome, Failed):
                row += [None, *(None for _ in terms), f"{outcome.term}: {outcome.kind}: {outcome.message}"]
            else:
                row += [outcome.value, *(outcome.parts.get(term) for term in terms), None]
            table.add_data(*row)
        self._run.log({name: table}, step=step)

    def speech(self, step: int, name: str, samples: Sequence[ScoredSample], sounds: Sounds) -> None:
        """A table of what was said, playable beside the recording of the same text, with its scores."""
        if not self._run or not self._rows or not samples:
            return
        import wandb

        numbers = spread(range(len(samples)), self._rows)
        terms = sorted({t for n in numbers if isinstance(o := samples[n].outcome, Scored) for t in o.parts})
        table = wandb.Table(
            columns=["prompt", "instruction", "text", "speech", "recording", "score", *terms, "failure"]
        )
        for number in numbers:
            outcome, prompt, wave = samples[number].outcome, samples[number].sample.prompt, sounds.wave(number)
            said = wandb.Audio(wave, sample_rate=SAMPLE_RATE) if wave is not None else None
            recording = wandb.Audio(load_audio(prompt.audio, SAMPLE_RATE), sample_rate=SAMPLE_RATE)
            row = [prompt.id, str(prompt.metadata.get("instruction", "")), prompt.reference, said, recording]
            if isinstance(outcome, Scored):
                table.add_data(*row, outcome.value, *(outcome.parts.get(term) for term in terms), None)
            else:
                table.add_data(*row, None, *(None for _ in terms), f"{outcome.term}: {outcome.kind}: {outcome.message}")
        self._run.log({name: table}, step=step)

    def dialogue(self, step: int, name: str, result: DialogueResult) -> None:
        """A table of turns, each with the user's clip, what was said before, the reply and its scores."""
        if not self._run or not self._rows:
            return
        import wandb

        names = result.names
        table = wandb.Table(
            columns=["prompt", "persona", "before", "heard", "said", "reasoning", "reply", "reference", *names]
        )
        for each in spread(result.replies, self._rows):
            audio = wandb.Audio(load_audio(each.audio, SAMPLE_RATE), sample_rate=SAMPLE_RATE)
            before = "\n".join(f"{turn.role}: {turn.text}" for turn in each.history)
            texts = [each.said, each.reasoning, each.reply, each.reference]
            table.add_data(
                each.prompt_id, each.persona, before, audio, *texts, *(each.scores.get(name) for name in names)
            )
        self._run.log({name: table}, step=step)

    def comparison(self, step: int, prompts: Sequence[Prompt], before: EvalResult, after: EvalResult) -> None:
        """A table of the same held-out clips before and after: audio, transcript, both hypotheses, both WER."""
        if not self._run or not self._rows:
            return
        import wandb

        columns = ["prompt", "group", "audio", "transcript", "before", "after", "wer_before", "wer_after"]
        table = wandb.Table(columns=columns)
        clips = {prompt.id: prompt.audio for prompt in prompts}
        for old, new in spread(list(zip(before.utterances, after.utterances, strict=True)), self._rows):
            audio = wandb.Audio(load_audio(clips[old.prompt_id], SAMPLE_RATE), sample_rate=SAMPLE_RATE)
            texts = old.reference, old.hypothesis, new.hypothesis
            table.add_data(old.prompt_id, old.group, audio, *texts, old.errors.wer, new.errors.wer)
        self._run.log({"heldout_before_and_after": table}, step=step)

    def close(self, exit_code: int) -> None:
        if self._run:
            self._run.finish(exit_code=exit_code)
