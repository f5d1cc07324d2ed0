"""TRL's side of benchmarks/vs_trl.py, in a process of its own: GRPOTrainer on the same texts, policy and reward."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from results import ROOT  # noqa: F401, the import makes our packages importable
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from vs_trl_task import LEARNING_RATE, MAX_NEW_TOKENS, TEMPERATURE, Job, agreement, prompts


def reward(completion_ids: Sequence[Sequence[int]], target: Sequence[Sequence[int]], **_: Any) -> list[float]:
    return [agreement(tokens, wanted) for tokens, wanted in zip(completion_ids, target, strict=True)]


class Clock(TrainerCallback):
    """Seconds from the end of one optimiser step to the end of the next."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.phases: Counter[str] = Counter()
        self._last = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.perf_counter()
        self.steps.append({"seconds": now - self._last, "phases": dict(self.phases)})
        self._last = now
        self.phases.clear()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "reward" in logs:
            self.steps[-1] |= {"reward": logs["reward"], "tokens": logs["completions/mean_length"]}
            print(len(self.steps), round(self.steps[-1]["seconds"], 3), logs, flush=True)

    def time(self, owner: Any, method: str, phase: str) -> None:
        """Add the seconds of each call of a method to a phase."""
        inner: Callable[..., Any] = getattr(owner, method)

        @wraps(inner)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*arguments, **keywords)
            finally:
                self.phases[phase] += time.perf_counter() - start

        setattr(owner, method, timed)


def main() -> None:
    start = time.perf_counter()
    job = Job(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    clock = Clock()
    samples = job.prompts * job.group
    setting = {"per_device_train_batch_size": samples, "gradient_accumulation_steps": 1, **job.setting}
    config = GRPOConfig(
        output_dir=str(Path(job.out).with_suffix(".trl")),
        use_cpu=True,
        bf16=False,
        max_steps=job.steps,
        num_generations=job.group,
        max_completion_length=MAX_NEW_TOKENS,
        temperature=TEMPERATURE,
        top_k=0,
        beta=0.0,
        num_iterations=1,
        loss_type="grpo",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        gradient_checkpointing=False,
        disable_dropout=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=job.seed,
        data_seed=job.seed,
        dataloader_pin_memory=False,
        **setting,  # type: ignore[arg-type]
    )
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    texts = prompts(job.model, job.bare)
    rows = [{"prompt": p.metadata["asked"], "target": p.metadata["target"]} for p in texts]
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32, attn_implementation="sdpa")
    model.name_or_path = job.model
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    clock.time(trainer, "_generate_single_turn", "rollout")
    clock.time(trainer, "_calculate_rewards", "reward")
    clock.time(trainer, "_compute_loss", "forward")
    clock.time(trainer.accelerator, "backward", "backward")
    began = time.perf_counter()
    trainer.train()
    Path(job.out).write_text(
        json.dumps({"start": began - start, "steps": clock.steps, "threads": torch.get_num_threads()})
    )


if __name__ == "__main__":
    main()
