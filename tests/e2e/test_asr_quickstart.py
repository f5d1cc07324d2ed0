"""The quickstart as a user runs it, shrunken: real Ray, vLLM and DeepSpeed, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RECIPE = Path(__file__).parents[2] / "recipes" / "asr" / "quickstart.yaml"
RLHF = [sys.executable, "-m", "rlhf_platform.cli.main"]


def small(cache: Path, runs: Path, **changes: object) -> list[str]:
    """The quickstart on few steps and clips; data and warm start cached in `cache`."""
    keys = {
        "name": "e2e",
        "cache_dir": cache,
        "runs_dir": runs,
        "sft.steps": 20,
        "sft.warmup_steps": 5,
        "steps": 2,
        "rollout.prompts_per_step": 4,
        "algorithm.group_size": 4,
        "evaluation.max_clips": 8,
        "tracking.table_rows": 4,
    }
    return [*RLHF, "run", str(RECIPE), *(f"{key}={value}" for key, value in (keys | changes).items())]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(cache: Path) -> tuple[str, Path]:
    """What the first run printed, and its folder. A reward from a file beside the recipe takes part."""
    rewards = (
        "rewards=[{fn: rewards.asr:wer_reward}, {fn: "
        + str(RECIPE.parent / "my_rewards.py")
        + ":brevity, weight: 0.1}]"
    )
    ended = subprocess.run(
        [*small(cache, cache / "runs"), rewards], capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout, cache / "runs" / "e2e"


def descendants(of: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(of.pid).children(recursive=True)


def test_a_run_ends_with_the_word_error_rate_before_and_after_and_its_interval(first: tuple[str, Path]) -> None:
    printed, folder = first
    assert "Held-out word error rate, %, before and after RL" in printed
    assert re.search(r"all +8 +\d+\.\d\d +\d+\.\d\d +[+-]\d+\.\d\d +\[[+-]\d+\.\d\d, [+-]\d+\.\d\d\]", printed)
    results = json.loads((folder / "results.json").read_text())
    low, high = results["wer_difference_interval"]
    assert low <= results["wer_difference"] <= high
    assert results["wer_difference"] == pytest.approx(results["wer_after"] - results["wer_before"])


def test_rollout_and_learner_agree_before_and_after_every_sync_and_the_run_says_so(first: tuple[str, Path]) -> None:
    printed, folder = first
    differences = [float(d) for d in re.findall(r"mismatch (\S+) before sync, (\S+) after", printed) for d in d]
    assert len(differences) == 4
    assert max(differences) < 1e-4
    assert json.loads((folder / "results.json").read_text())["max_logprob_diff"] < 1e-4
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [s["weight_version"] for s in steps] == [1, 2]


def test_the_run_folder_holds_recipe_metrics_tracking_and_status(first: tuple[str, Path]) -> None:
    _, folder = first
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wanted = {
        "reward",
        "reward/wer_reward",
        "reward/brevity",
        "sample_wer",
        "kl",
        "logprob_diff_max",
        "seconds/rollout",
    }
    for step in steps:
        assert wanted <= step.keys()
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 2)
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    kept = [file for file in folder.glob("wandb/data/**/*") if file.is_file() and file.read_bytes()[:4] == b"RIFF"]
    assert len(kept) == 12  # four rows each in the tables of before, of after, and of both side by side
    validated = subprocess.run([*RLHF, "validate", folder / "recipe.yaml"], capture_output=True, text=True, check=False)
    assert validated.returncode == 0, validated.stderr


def test_the_checkpoint_loads_in_transformers_by_itself(first: tuple[str, Path]) -> None:
    printed, folder = first
    assert "loaded in Transformers and served by vLLM, log-probs within" in printed
    program = (
        "from transformers import AutoModelForMultimodalLM, AutoProcessor; import sys;"
        "AutoProcessor.from_pretrained(sys.argv[1]);"
        "print(type(AutoModelForMultimodalLM.from_pretrained(sys.argv[1])).__name__)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, folder / "checkpoint"],
        capture_output=True,
        text=True,
        cwd=folder,  # away from the project: nothing of ours is needed
        timeout=120,
        check=False,
    )
    assert "Qwen3ASRForConditionalGeneration" in ended.stdout, ended.stderr


def test_ctrl_c_in_a_second_run_skips_the_warm_start_leaves_no_process_and_says_how_far_it_came(
    first: tuple[str, Path], cache: Path
) -> None:
    command = small(cache, cache / "runs", name="stopped", steps=1000, **{"tracking.wandb": "off"})
    # Its own process group, to which a terminal sends Ctrl-C.
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    assert run.stdout is not None
    printed, started = [], []
    for line in run.stdout:
        printed.append(line)
        if "RL step 1/1000" in line:
            started = descendants(run)
            os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=60) == 130, "".join(printed)
    assert any("warm start: skipped" in line for line in printed)
    assert len(started) > 3
    gone, alive = psutil.wait_procs(started, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE], (len(gone), alive)
    status = json.loads((cache / "runs" / "stopped" / "status.json").read_text())
    assert (status["state"], status["phase"]) == ("interrupted", "rl")
    assert status["step"] >= 1
    assert time.time() - status["updated"] < 600


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm.group_sise": 4}, "algorithm.group_sise"),
        ({"algorithm.group_size": 1}, "algorithm.group_size is 1"),
        ({"data.demo": "null", "data.manifest": "/nowhere.jsonl"}, "data.manifest"),
        ({"rewards": "[{fn: rewards.asr:wer_rewards}]"}, "wer_reward"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line_before_anything_starts(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    command = small(tmp_path / "cache", tmp_path / "runs") + [f"{key}={value}" for key, value in changes.items()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
