"""`rlhf plan` as it is typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app

ROOT = Path(__file__).parents[2]
LARGE = str(ROOT / "recipes/asr/whisper_large.yaml")
TINY = str(ROOT / "recipes/asr/whisper_tiny.yaml")
WHISPER_LARGE_V3 = {
    "model_type": "whisper",
    "d_model": 1280,
    "encoder_layers": 32,
    "decoder_layers": 32,
    "encoder_attention_heads": 20,
    "decoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_ffn_dim": 5120,
    "vocab_size": 51866,
    "num_mel_bins": 128,
}


def plan(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A folder with a config.json and nothing else, as an override."""
    (tmp_path / "config.json").write_text(json.dumps(WHISPER_LARGE_V3))
    return f"backbone.path={tmp_path}"


def test_a_recipe_that_fits_here_is_code_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = plan(TINY, "rollout.kv_cache_gib=0.1", "learner.micro_batch_size=4")
    assert code == 0, output
    assert "37.5 M parameters, 29.6 M trainable" in output
    assert "unknown until the data set is built" in output
    assert output.rstrip().endswith("fits")
    assert max(map(len, output.splitlines())) <= 100


def test_whisper_large_fits_on_eight_gpus_of_80_gb(large: str) -> None:
    """The published model has 1543 M parameters (github.com/openai/whisper says 1550)."""
    code, output = plan(LARGE, large, "--gpus", "8", "--gpu-memory", "80GB")
    assert code == 0, output
    assert "1.54 G parameters" in output
    assert "assumed: rollout.gpus=1 learner.gpus=1" in output
    assert max(map(len, output.splitlines())) <= 100


def test_what_does_not_fit_is_code_3_and_says_what_to_change(large: str) -> None:
    asked = (LARGE, large, "--gpus", "8", "--gpu-memory", "16GiB")
    code, output = plan(*asked, "--json")
    found = json.loads(output)
    assert code == 3
    assert not found["fits"]
    assert found["proposals"]
    for proposal in found["proposals"]:
        code, output = plan(*asked, *proposal)
        assert code == 0, output
    code, output = plan(*asked)
    assert " ".join(found["proposals"][0]) in output
    assert code == 3


def test_overrides_of_gpus_are_kept(large: str) -> None:
    code, output = plan(LARGE, large, "learner.gpus=0", "--gpus", "4", "--gpu-memory", "80GB", "--json")
    found = json.loads(output)
    assert code == 0, output
    assert found["actors"]["learner"]["device_bytes"] == {}
    assert found["actors"]["rollout"]["device_bytes"]


def test_a_hub_name_without_a_copy_is_code_2() -> None:
    code, output = plan(LARGE, "--gpus", "8", "--gpu-memory", "80GB")
    assert code == 2
    assert "backbone.path is 'openai/whisper-large-v3'" in output
    assert "config.json" in output


def test_a_recipe_that_is_refused_is_code_2() -> None:
    code, output = plan(TINY, "rollout.wokers=2")
    assert code == 2
    assert "did you mean" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "8", "--nodes", "3"), "--gpus is 8, --nodes 3"),
        (("--gpus", "8", "--gpu-memory", "80 bytes"), "--gpu-memory is '80 bytes'"),
        (("--gpu-memory", "80GB"), "add --gpus"),
        (("--cpus", "-1"), "--cpus is -1"),
    ],
)
def test_a_cluster_that_cannot_be_is_code_2(options: tuple[str, ...], message: str) -> None:
    code, output = plan(TINY, *options)
    assert code == 2
    assert message in output


def test_cores_of_this_machine_do_not_count_for_another() -> None:
    code, output = plan(TINY, "rollout.cpus=32", "--cpus", "64", "--memory", "64GB")
    assert code == 0, output


def test_a_cluster_that_nothing_is_said_of_is_not_judged(large: str) -> None:
    code, output = plan(LARGE, large)
    assert code == 0
    assert "memory is not judged" in output
