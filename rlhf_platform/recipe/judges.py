"""The language models that judge; as in `schema.py`."""

from dataclasses import dataclass, field

from rlhf_platform.recipe.field import key


@dataclass
class CalibrationConfig:
    """What a judge has to show on labelled replies before a run starts (docs/judges.md)."""

    pairs: str | None = None
    """JSONL of labelled replies, relative to the recipe; none: those of the demo set, or no calibration."""
    split: str = "calibration"
    """The `split` of the pairs that are asked about."""
    limit: int | None = key(None, at_least=10)
    """Ask about only so many, evenly spread; none: all."""
    minimum: float = key(0.0, at_least=0.0, at_most=1.0)
    """Share of pairs on which the judge must agree with the label; below it no run starts. A coin has 0.5."""
    max_order_bias: float = key(1.0, at_least=0.0, at_most=1.0)
    """By how much the reply that is shown first may win more, or less, often than half the time."""
    every: int = key(0, at_least=0)
    """RL steps after which the judge is asked about the same pairs again (metrics `judge_moved`, `judge_accuracy`): an
    endpoint may change its model without a word. 0: never. A pass costs as much as the one before the start."""


@dataclass
class JudgeConfig:
    """A language model that rewards ask by its name: one that the platform serves, or an endpoint of yours."""

    name: str = ""
    """What `rewards[].judge` calls it."""
    model: str = ""
    """What to serve with vLLM: `smollm2`, a folder or a hub name; it must have a chat template. With `url`, the name of
    the model there; empty: the only one."""
    url: str = ""
    """An endpoint that speaks OpenAI's protocol, as `https://host/v1`; then nothing is served here."""
    api_key_env: str = ""
    """Environment variable that holds the key for `url`; the key itself stands in no file."""
    lora: str = ""
    """Folder of a LoRA that `model` is served with, relative to the recipe; `recipes/judge/sft.yaml` leaves one beside
    its warm start, in `adapter`. Without a GPU it is merged into a copy of the weights, which answers twice as fast."""
    dtype: str = key("bfloat16", choices=("bfloat16", "float32"))
    """Of the weights that are served."""
    max_tokens: int = key(2048, at_least=128)
    """Prompt and verdict together, in tokens."""
    max_sequences: int = key(64, at_least=1, at_most=4096)
    """Verdicts that the server works on at once; more wait."""
    kv_cache_gib: float = key(0.5, above=0.0)
    """Memory for the KV cache, GiB."""
    threads: int = key(1, at_least=1)
    """Threads that it computes with on a machine without a GPU. Rollout and learner wait while rewards are asked, so
    it may take the cores that they have reserved."""
    cpus: float = key(0.25, above=0.0)
    """Cores that it reserves; below 1 a core is shared."""
    gpus: int = key(0, at_least=0, at_most=64)
    """GPUs that it reserves and splits the model over."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    """What it must show before a run starts."""
