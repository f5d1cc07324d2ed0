"""Our side of benchmarks/vs_trl.py, in a process of its own: Ray, vLLM, DeepSpeed, through `rlhf_platform.train`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from results import ROOT
from vs_trl_task import LEARNING_RATE, MAX_NEW_TOKENS, TEMPERATURE, Job, prompts

from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.validate import problems
from rlhf_platform.train.cluster import cluster, placed
from rlhf_platform.train.loop import rl_steps
from rlhf_platform.train.sync import sync
from rlhf_platform.train.team import Team

PROBE = 4
"""Prompts that prove a sync, as in `rlhf run`."""
PHASES = ("rollout", "reward", "update", "sync")


def recipe(job: Job) -> dict[str, Any]:
    """A rollout worker and a learner rank for each core; rollout and learner take turns on the same cores."""
    return {
        "name": "vs-trl",
        "branch": "asr",
        "steps": job.steps,
        "seed": job.seed,
        "backbone": {"adapter": "codec_lm", "path": job.model, "dtype": "float32"},
        "data": {"demo": "digits"},
        "algorithm": {"type": "grpo", "group_size": job.group, "kl_coef": 0.0},
        "rewards": [{"fn": f"{ROOT / 'benchmarks' / 'vs_trl_task.py'}:reward"}],
        "rollout": {
            "prompts_per_step": job.prompts,
            "max_new_tokens": MAX_NEW_TOKENS,
            "max_tokens": 256,
            "temperature": TEMPERATURE,
            "max_sequences": job.prompts * job.group,
            "kv_cache_gib": 0.25,
            "workers": job.threads,
        },
        "learner": {"workers": job.threads, "learning_rate": LEARNING_RATE, **job.setting},
        "cluster": {"cpus": 2 * job.threads},
        "tracking": {"wandb": "off"},
    }


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    path = Path(job.out).with_suffix(".yaml")
    path.write_text(json.dumps(recipe(job)))
    loaded = load_recipe(path)
    if found := problems(loaded):
        sys.exit("\n".join(found))
    texts = prompts(job.model, job.bare)
    steps: list[dict[str, Any]] = []
    start = time.perf_counter()
    with cluster(loaded.recipe), placed(loaded.recipe) as placement:
        team = Team(loaded, placement, job.model, texts[:PROBE])
        sync(team.learners, team.rollouts, 0, texts[:PROBE], "float32")
        began = last = time.perf_counter()
        sampler = PromptSampler(texts, job.prompts, job.seed)
        for result in rl_steps(loaded.recipe, team, sampler, texts[:PROBE]):
            now = time.perf_counter()
            steps.append(
                {
                    "seconds": now - last,
                    "reward": result.metrics["reward"],
                    "tokens": result.metrics["completion_tokens"],
                    "phases": {p: result.metrics[f"seconds/{p}"] for p in PHASES},
                }
            )
            last = now
    Path(job.out).write_text(json.dumps({"start": began - start, "steps": steps}))


if __name__ == "__main__":
    main()
