"""An exported model is the run's, whole or not there, and its card says what the run's folder and manifest say."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from policies.build import notice_of
from rlhf_platform.errors import RunError
from rlhf_platform.tracking.export import export
from tests.runs import write_data, write_run

HUB = {"backbone": {"path": "openai/whisper-small", "adapter": "whisper"}}
LORA = {"learner": {"lora": {"rank": 4}}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fake_weights(folder: Path, name: str = "config.json") -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps({"architectures": ["WhisperForConditionalGeneration"]}))
    (folder / "model.safetensors").write_bytes(b"weights")


def write_with_checkpoint(path: Path, **of_run: object) -> Path:
    run = write_run(path, **of_run)  # type: ignore[arg-type]
    fake_weights(run / "checkpoint")
    return run


def export_card(run: str, to: str = "out", keep_adapter: bool = False) -> str:
    return (export(Path(run), Path(to), Path("runs"), keep_adapter=keep_adapter) / "README.md").read_text()


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def loaded_by(text: str) -> dict:
    """What the card's snippet defines, run where the card lies."""
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    return names


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def plain_model(path: Path) -> Any:
    """By its own class: vLLM, once imported, puts a config class of its own behind Transformers' automatic ones."""
    from transformers import Qwen3ASRForConditionalGeneration

    return Qwen3ASRForConditionalGeneration.from_pretrained(path)


def test_an_exported_model_loads_as_its_card_says_and_gives_the_same_logits(
    place: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(place / "runs" / "first")
    shutil.copytree(tiny_checkpoint, run / "checkpoint")
    text = export_card("first")
    copied = {path.name: path.read_bytes() for path in Path("out").iterdir() if path.name != "README.md"}
    assert copied == {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    monkeypatch.chdir("out")
    found = loaded_by(text)
    original = plain_model(tiny_checkpoint)
    assert torch.equal(logits(found["model"]), logits(original))
    assert found["processor"].tokenizer.decode([5]) is not None


def test_an_adapter_kept_loads_on_the_weights_that_its_card_names(
    place: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft

    run = write_run(place / "runs" / "first", start=str(tiny_checkpoint), recipe=LORA)
    shutil.copytree(tiny_checkpoint, run / "checkpoint")
    base = plain_model(tiny_checkpoint)
    plain = logits(base)
    torch.manual_seed(0)
    # By the default A is random and B is 0; here both are random, so that the adapter changes something.
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config)
    adapted.save_pretrained(run / "adapter")
    text = export_card("first", keep_adapter=True)
    assert front_matter(text)["library_name"] == "peft"
    monkeypatch.chdir("out")
    assert not Path("config.json").exists()
    answer = logits(loaded_by(text)["model"])
    assert torch.equal(answer, logits(adapted))
    assert not torch.allclose(answer, plain)


def test_the_front_matter_is_a_model_cards(place: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write_with_checkpoint(place / "runs" / "first", recipe={**HUB, "data": {"manifest": str(write_data(place))}})
    card = hub.ModelCard(export_card("first"))
    data = card.data
    assert (data.library_name, data.base_model, data.language) == ("transformers", "openai/whisper-small", ["en"])
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.tags == ["rlhf-platform", "speech", "reinforcement-learning", "grpo"]
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("wer", 9.09, "heldout")
    assert yaml.safe_load(card.data.to_yaml())["model-index"][0]["name"] == "first"


def test_the_card_says_what_the_run_says(place: Path) -> None:
    manifest = write_data(place / "mine")
    run = write_with_checkpoint(
        place / "runs" / "first",
        recipe={
            **HUB,
            "sft": {"steps": 50},
            "data": {"demo": None, "manifest": str(manifest)},
            "evaluation": {"max_clips": 2},
        },
    )
    text = export_card("first")
    assert "Base model: `openai/whisper-small`. It was first tuned on transcripts: 50 steps of `sft`." in text
    assert "36.36 % before RL, 9.09 % after; difference -27.27 points, 95 % interval [-50.00, -9.09]" in text
    assert (run / "report.txt").read_text().rstrip() in text
    assert (run / "recipe.yaml").read_text().rstrip() in text
    assert "| heldout | evaluation, at most 2 clips | 1 |" in text
    assert "| train | warm start and RL | 3 | 0.75 | 2 | en |" in text
    assert "| train | CC0-1.0 | 2 |" in text
    assert "| train | CC-BY-4.0 | 1 |" in text
    assert "| heldout | MIT | 1 |" in text
    assert "`type: grpo`, `group_size: 8`" in text
    assert f"| torch | {torch.__version__} |" in text
    assert "Clips were at most 4 s long." in text


def test_a_manifest_that_is_gone_or_damaged_is_said_and_nothing_made_up(place: Path) -> None:
    manifest = write_data(place / "mine")
    data = {"data": {"demo": None, "manifest": str(manifest)}}
    write_with_checkpoint(place / "runs" / "first", recipe=data)
    manifest.write_text("{}\n")
    assert "(`clips.jsonl`) could not be read when this card was written: 1 row cannot be used." in export_card("first")
    manifest.unlink()
    text = export_card("first", "again")
    assert "The manifest of the data (`clips.jsonl`) was gone when this card was written." in text
    assert "language" not in front_matter(text)
    assert "CC0" not in text


def test_the_demo_sets_manifest_is_found_in_the_cache_of_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf_platform.data import demo

    write_with_checkpoint(place / "runs" / "first")
    built = demo.folder_of("recorded", place / ".cache")
    write_data(built).rename(built / "manifest.jsonl")
    assert "| heldout | MIT | 1 |" in export_card("first")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert "| heldout | MIT | 1 |" in export_card("../runs/first")


def test_the_licence_of_built_weights_goes_with_them(place: Path) -> None:
    write_with_checkpoint(place / "runs" / "first", recipe={"backbone": {"build": "whisper_tiny_en"}})
    text = export_card("first")
    assert Path("out/NOTICE.txt").read_text() == notice_of("whisper_tiny_en")
    assert "MIT License" in notice_of("whisper_tiny_en")
    assert "Origin and licence of the base weights: `NOTICE.txt` beside this file." in text
    start = place / "start"
    start.mkdir()
    (start / "NOTICE.txt").write_text("whose it is")
    write_with_checkpoint(place / "runs" / "second", recipe=HUB, start=str(start))
    export_card("second", "out2")
    assert Path("out2/NOTICE.txt").read_text() == "whose it is"


def test_a_steps_checkpoint_of_a_running_run_has_that_steps_metrics(place: Path) -> None:
    run = write_with_checkpoint(place / "runs" / "first", status={"state": "running", "phase": "rl"})
    step = run / "checkpoints" / "step-00003"
    fake_weights(step / "policy")
    with pytest.raises(RunError, match=r"no manifest\.json, it is not whole"):
        export(step, Path("out"), Path("runs"), keep_adapter=False)
    (step / "manifest.json").write_text("{}")
    text = export_card("first/checkpoints/step-00003")
    assert "Then 3 of 8 steps of GRPO: a checkpoint on the way." in text
    assert "| `reward` | 0.3 |" in text
    assert "model-index" not in front_matter(text)
    with pytest.raises(RunError, match=r"its state is running, phase rl: .* one of its steps: .*step-00003"):
        export(Path("first"), Path("out2"), Path("runs"), keep_adapter=False)


def test_what_cannot_be_exported_is_refused(place: Path) -> None:
    run = write_with_checkpoint(place / "runs" / "first")
    with pytest.raises(RunError, match=r"learner\.lora\.rank is 0"):
        export(run, Path("out"), Path("runs"), keep_adapter=True)
    write_with_checkpoint(place / "runs" / "lora", recipe=LORA)
    with pytest.raises(RunError, match=r"no adapter_config\.json"):
        export(Path("lora"), Path("out"), Path("runs"), keep_adapter=True)
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(RunError, match=r"checkpoint: no config\.json"):
        export(run, Path("out"), Path("runs"), keep_adapter=False)
    assert not Path("out").exists()


def test_a_folder_that_is_taken_is_left_alone_and_an_empty_one_is_filled(place: Path) -> None:
    run = write_with_checkpoint(place / "runs" / "first")
    Path("taken").mkdir()
    Path("taken/file").write_text("mine")
    for to, message in (
        ("taken", "not empty"),
        ("taken/file", "a file of that name"),
        ("taken/file/below", "File exists"),
        (str(run / "checkpoint" / "below"), "lies in what is exported"),
    ):
        with pytest.raises(RunError, match=message):
            export(run, Path(to), Path("runs"), keep_adapter=False)
    assert [path.read_text() for path in Path("taken").iterdir()] == ["mine"]
    Path("empty").mkdir()
    export(run, Path("empty"), Path("runs"), keep_adapter=False)
    assert (Path("empty") / "model.safetensors").read_bytes() == b"weights"


def test_a_copy_that_breaks_off_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_with_checkpoint(place / "runs" / "first")

    def full(source: str, to: str, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", lambda *_, **__: full("", ""))
    with pytest.raises(RunError, match=r"--to is 'deep/out': No space left on device"):
        export(run, Path("deep/out"), Path("runs"), keep_adapter=False)
    assert not list(Path("deep").iterdir())


def test_the_card_of_a_voice_says_how_often_it_was_better(place: Path) -> None:
    spoken = {"branch": "tts", "speech": {"codec": "world"}, "data": {"manifest": str(write_data(place))}}
    run = write_with_checkpoint(place / "runs" / "first", recipe=spoken)
    results = {
        "start_checkpoint": "start",
        "heldout_before": {"cer.cer": 0.3, "mos.mos": 2.5},
        "heldout_after": {"cer.cer": 0.2, "mos.mos": 2.75},
        "win_rate": 0.6,
        "win_rate_interval": [0.52, 0.68],
        "confidence": 0.95,
    }
    (run / "results.json").write_text(json.dumps(results))
    text = export_card("first")
    assert front_matter(text)["pipeline_tag"] == "text-to-speech"
    assert "model-index" not in front_matter(text)
    assert "speech synthesis model" in text
    assert "text in, tokens of the codec `world` out" in text
    assert "Better than before RL on 60.0 % of the held-out prompts, 95 % interval [52.0, 68.0]" in text
    assert "| `cer.cer` | 0.3 | 0.2 |" in text
