"""`rlhf submit` as a user types it, on a cluster of two nodes: real Ray, vLLM and DeepSpeed, in processes of their own.

The nodes are on this machine and on loopback. Each has a folder of its own for Ray's files, so that what holds only
where the run's own process is shows.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_cluster import ray_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RECIPE = Path(__file__).parents[2] / "recipes" / "asr" / "quickstart.yaml"
SMALL = (
    "sft.steps=4",
    "sft.warmup_steps=1",
    "steps=2",
    "rollout.prompts_per_step=4",
    "algorithm.group_size=4",
    "evaluation.max_clips=8",
    "tracking.table_rows=4",
)


def write_recipe(folder: Path) -> None:
    """A recipe of the user's own with a reward that imports a file beside it, and notes where it was called."""
    (folder / "my.yaml").write_text(
        f"extends: {RECIPE}\n"
        "name: mine\n"
        "rewards:\n"
        "  - fn: rewards.asr:wer_reward\n"
        "  - fn: my_rewards.py:shortness\n"
        "    weight: 0.1\n"
        f"    kwargs: {{note: {folder / 'called_in'}}}\n"
    )
    (folder / "my_rewards.py").write_text(
        "import os\n"
        "from pathlib import Path\n\n"
        "from counting import words\n\n\n"
        "def shortness(sample, note):\n"
        "    Path(note).write_text(os.getcwd())\n"
        "    return -0.1 * words(sample.text)\n"
    )
    (folder / "counting.py").write_text("def words(text):\n    return len(text.split())\n")


def test_a_submitted_recipe_runs_to_its_checkpoint_with_the_user_s_reward_on_another_node(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    # Rollout and learner fill the head, so the reward worker is on the second node.
    with ray_cluster([2, 1]) as ray:
        ended = subprocess.run(
            [sys.executable, "-m", "rlhf_platform.cli.main", "submit", "my.yaml", "--address", ray.address, *SMALL],
            cwd=tmp_path,
            env=ray.environment(),
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^submitted rlhf-mine-[0-9a-f]{6}$", ended.stdout, re.MULTILINE)
    folder = tmp_path / "runs" / "mine"
    assert f"done: {folder}" in ended.stdout, "the log was not followed to its end"
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 2)
    assert (folder / "checkpoint" / "config.json").is_file()
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all("reward/shortness" in step and step["reward_failed"] == 0 for step in steps)
    assert "/1/session_" in (tmp_path / "called_in").read_text(), "the reward was not called on the second node"
