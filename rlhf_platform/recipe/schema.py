"""Every key of a recipe, with its unit, range and reason. Importing this file imports no torch.

The dataclasses are OmegaConf structured configs: an unknown key or a wrong type is refused. Ranges are in
each field's metadata (`at_least`, `at_most`, `above`, `choices`) and are checked by `recipe.validate`. Sections of many
keys (`backbone`, `algorithm`, `speech`, `dialogue`, `judges`) have files of their own beside this one.
docs/recipe_keys.md is made from this file: `python -m rlhf_platform.recipe.document > docs/recipe_keys.md`.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from rlhf_platform.recipe.algorithms import GRPO, AlgorithmConfig
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.recipe.field import key
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.mtp import MultiTokenConfig
from rlhf_platform.recipe.rehearsal import RehearsalConfig
from rlhf_platform.recipe.speech import SpeechConfig


@dataclass
class DataConfig:
    """Where prompts come from."""

    manifest: str | None = None
    """A JSONL manifest (docs/data.md), relative to the recipe. Give this or `demo`."""
    demo: str | None = key(
        None, choices=(None, "digits", "recorded", "speech", "phrases", "dialogue", "exchanges", "judge")
    )
    """A data set that `rlhf data build` makes; built into `cache_dir` on first use."""
    pairs: str | None = None
    """A JSONL file of judged answers (docs/preferences.md), relative to the recipe, for an offline algorithm; none: the
    policy makes them from prompts of `rl_split`."""
    labelled: str | None = None
    """A JSONL file of labelled replies (docs/judge_training.md), relative to the recipe, that a judge learns from; give
    it in the place of `manifest` and `demo`."""
    train_split: str = "train"
    """The `split` of the rows that the warm start learns from."""
    rl_split: str = "train"
    """The `split` of the rows that RL draws prompts from. Best its own: on clips that the warm start has learnt by
    heart all samples of a group are right, and nothing is left to compare."""
    eval_split: str = "heldout"
    """The `split` of the rows that the evaluation decodes and nothing learns from."""


@dataclass
class LoraConfig:
    """Low-rank adaptation of the decoder (2106.09685): W + alpha / rank * B A, with W frozen. There is no dropout: the
    log-probs that are trained on must be those that were sampled from."""

    rank: int = key(0, at_least=0, at_most=512)
    """Width of A and B; 0 trains whole weights. 8 to 64 is usual, 512 the most that vLLM serves."""
    alpha: float = key(32.0, above=0.0, at_most=4096.0)
    """The change to a weight is scaled by alpha / rank, so that the learning rate need not follow the rank."""
    targets: list[str] = field(default_factory=list)
    """Last part of the names of the decoder's linear layers that are adapted, as `q_proj`; empty: the projections of
    its attention, as in the paper, and of its MLP."""


@dataclass
class SFTConfig:
    """Warm start: supervised training on transcripts (TRL on DeepSpeed), cached by recipe, data and code."""

    steps: int = key(0, at_least=0)
    """Optimiser steps; 0 leaves this stage out."""
    batch_size: int = key(32, at_least=1)
    """Clips per step."""
    learning_rate: float = key(1e-3, above=0.0, at_most=1.0)
    """Peak, reached after `warmup_steps`."""
    schedule: str = key("cosine", choices=("cosine", "constant"))
    """After the warm-up: `cosine` falls to 0; `constant` leaves the fall to RL (`learner.schedule`), as in the
    warm-up, stable, decay schedule (2404.06395)."""
    warmup_steps: int = key(50, at_least=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = key(0.01, at_least=0.0, at_most=1.0)
    """Of AdamW, per step and learning rate."""
    max_grad_norm: float = key(1.0, above=0.0)
    """A longer gradient is scaled down to this L2 norm."""
    curriculum: float = key(0.0, at_least=0.0, at_most=1.0)
    """Share of the steps over which clips come in from short to long: starts with the shortest fifth, ends with all
    (after SortaGrad, 1512.02595). A model from nothing needs it to find the words in the audio; 0 turns it off."""
    cpus: int = key(1, at_least=1)
    """Cores per rank during the warm start, when no rollout worker is up; ranks are `learner.workers`."""
    autocast: bool = False
    """Compute matrix products in bfloat16 while weights stay float32: about half the time where the processor knows
    bfloat16. What the warm start leaves is served and proven in float32 as ever. Needs `backbone.dtype: float32`."""
    spec_augment: bool = False
    """Mask bands of time and frequency (1904.08779), as StepAudio 2.5 does in ASR SFT."""
    freeze_encoder: bool = False
    """Keep the audio encoder as the backbone brings it, as StepAudio 2.5 does; for a pretrained one. With `lora` it is
    always kept."""
    beside: str | None = None
    """A recipe of branch tts, relative to this one, whose SFT rows are learnt too, so that one backbone hears and
    speaks: a step is all of this recipe's rows or all of that one's. Of that recipe `data` and `speech` count."""
    beside_share: float = key(0.25, above=0.0, at_most=0.9)
    """Share of the steps that are of the rows of `beside`."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Train the decoder by LoRA, and the adaptor whole. The warm start is saved with LoRA merged into its weights, and
    the LoRA alone beside it, in `adapter`."""
    seed: int = key(0, at_least=0)
    """Order of clips and masks, apart from the run's `seed` so that runs share a warm start."""


@dataclass
class RolloutConfig:
    """Generation with vLLM."""

    workers: int = key(1, at_least=1)
    """vLLM engines, one actor each."""
    cpus: int = key(1, at_least=1)
    """Cores per worker; its threads are set to exactly that."""
    gpus: int = key(0, at_least=0, at_most=1)
    """GPUs per worker, reserved in Ray; 0 serves on the cores."""
    prompts_per_step: int = key(16, at_least=1)
    """Prompts over all workers; samples per step are this times `algorithm.group_size`."""
    temperature: float = key(1.0, above=0.0, at_most=10.0)
    """Logits are divided by this before sampling; 1 samples the policy itself."""
    top_p: float = key(1.0, above=0.0, at_most=1.0)
    """1 is required for now: a cut tail changes the distribution that the learner must reproduce."""
    max_tokens: int = key(512, at_least=64)
    """Prompt and completion together, in tokens; bounds the engine's memory per sequence."""
    max_sequences: int = key(128, at_least=1, at_most=4096)
    """Sequences that an engine works on at once; more wait."""
    max_new_tokens: int = key(32, at_least=1)
    """Longest completion in tokens; a longer one is cut and counted."""
    kv_cache_gib: float = key(0.5, above=0.0)
    """Memory for the KV cache per worker, GiB."""
    waves: int = key(1, at_least=1)
    """Parts of a step's prompts that are sampled one after another, while the rewards of the parts before are at work:
    it hides rewards that take long elsewhere, as judges on GPUs of their own. Small parts make poor use of a GPU, and
    where rollout and rewards share cores nothing is gained."""
    speculative: str = key("none", choices=("none", "mtp"))
    """`mtp`: the checkpoint's heads guess tokens that the policy then verifies, several in one forward. What is sampled
    and its log-probs stay those of the policy (2211.17192)."""


@dataclass
class RewardConfig:
    """One term of the reward: a function of yours, or a server that scores."""

    fn: str = ""
    """`package.module:name`, or `file.py:name` relative to the recipe (docs/rewards.md). Give this or `url`."""
    url: str = ""
    """Address of a server that scores, as `https://host/score` (docs/reward_server.md)."""
    token_env: str = ""
    """Environment variable that holds the bearer token of the server at `url`; the token itself stands in no file."""
    send_audio: bool = False
    """Send the clip's bytes to `url` along with each sample: a server elsewhere cannot read a path."""
    name: str = ""
    """Name in metrics and tables; the function's name by default."""
    weight: float = key(1.0, at_least=-1000.0, at_most=1000.0)
    """Factor of this term; negative for a penalty, 0 for a term that is logged, or that a gate asks, and not learnt."""
    schedule: str = ""
    """An expression of `step` that the weight is multiplied by, as `linear(step, 0, 100)`: a penalty that comes in
    late, or a help that fades."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the function as keywords."""
    judge: str = ""
    """The model that the function asks for its opinion: one of `judges` by its name, whose address is then passed to it
    as keyword `judge`, or a name, folder or URL, passed as it is. What judges in training may not judge in the
    evaluation (law 8); one of `judges` may if its prompt or rubric is another."""
    part: str = ""
    """Of an answer that is a dict, the number that counts; the others are logged only. Empty: their sum counts."""
    range: list[float] = field(default_factory=list)
    """Lowest and highest number that can be right, as [0, 1]; another is `Failed(out_of_range)`. Empty: any."""
    shape: str = ""
    """An expression of the answer `x` that stands for it, as `exp(-2.5 x)`, `1 - tanh(3 x)`, `clip(x, 0, 1)` or
    `linear(x, 0.2, 0.8)`."""
    gate: dict[str, Any] = field(default_factory=dict)
    """`{if: cer < 0.2, else: 0}`: the term counts while the condition on terms, as answered, holds; otherwise `else`
    stands for it."""
    timeout: float = key(30.0, above=0.0)
    """Seconds for one call (one sample, or the whole batch of a batched function). Then its process is killed, and it
    is `Failed(timeout)`."""
    retries: int = key(0, at_least=0, at_most=10)
    """Times that a call is made again after it was late, raised, died or found no server; alone, if in a batch."""
    concurrency: int | None = key(None, at_least=1, at_most=1024)
    """Calls at a time per reward worker: processes of a sync function, awaits in the one process of an async one. None:
    1 and 32."""
    batch_size: int | None = key(None, at_least=1)
    """Samples in one call of a batched function; none: all that the worker was given, whole groups."""
    on_failure: str = key("mask", choices=("mask", "abort"))
    """`mask`: a sample without an answer is left out and counted; `abort`: it ends the run."""
    max_memory: float = key(4.0, above=0.0)
    """GiB that one process of this reward may hold; above it, it is killed and the call is `Failed(crashed)`."""
    recycle_after: int = key(0, at_least=0)
    """Calls after which a process is replaced by a fresh one, which bounds what leaks and takes up what the old one
    remembered; 0 never."""
    cpus: float = key(0.0, at_least=0.0)
    """Cores reserved for this reward in each worker, beside `scoring.cpus`; its processes share them, and their threads
    are set to match."""
    gpus: float = key(0.0, at_least=0.0)
    """GPUs reserved for this reward in each worker, parts of one allowed; its processes share them. With 0 they see
    none."""
    cache: bool = False
    """Answer a completion of a prompt that was met before as then, for a function that always answers alike and asks no
    log-probs: completions repeat as a policy grows sure."""


@dataclass
class ScoringConfig:
    """The reward workers, and how the terms become one number."""

    workers: int = key(1, at_least=1)
    """Actors, each with processes of its own for the reward functions."""
    cpus: float = key(0.25, above=0.0)
    """Cores per worker. Verifiable rewards need little; below 1 a core is shared with other light actors."""
    max_failure_rate: float = key(0.1, at_least=0.0, at_most=1.0)
    """Share of the samples of the last `failure_window` steps that may have no reward before the run stops."""
    failure_window: int = key(4, at_least=1, at_most=1000)
    """RL steps that `max_failure_rate` looks back over: one bad minute of a server does not end a run."""
    combine: str = key("sum", choices=("sum", "product", "min", "harmonic_mean"))
    """How terms become one: `sum` of weight times term; `product` of each term to the power of its weight; `min` of
    weight times term; `harmonic_mean`, weighted. The last three let no term make up for another."""
    normalize: str = key("none", choices=("none", "terms", "total"))
    """Subtract the mean of the group and divide by its spread: `terms`, each term before its weight, so that none
    drowns another (GLM-TTS; GDPO 2601.05242); `total`, their combination."""
    gate: dict[str, Any] = field(default_factory=dict)
    """As `rewards[].gate`, for the combination: `{if: cer < 0.2, else: 0}`."""


@dataclass
class LearnerConfig:
    """The DeepSpeed learner."""

    workers: int = key(1, at_least=1)
    """Ranks, one actor each."""
    cpus: int = key(1, at_least=1)
    """Cores per rank; its threads are set to exactly that."""
    gpus: int = key(0, at_least=0, at_most=1)
    """GPUs per rank, reserved in Ray; 0 trains on the cores."""
    zero_stage: int = key(0, at_least=0, at_most=3)
    """What DeepSpeed splits over the ranks: 0 nothing, 1 optimiser states, 2 gradients too, 3 weights too."""
    learning_rate: float = key(1e-6, above=0.0, at_most=1.0)
    """1e-6 suits full-size models; the tiny backbone takes about 1e-4."""
    warmup_steps: int = key(0, at_least=0)
    """Optimiser steps over which the learning rate rises from 0."""
    schedule: str = key("constant", choices=("constant", "linear", "cosine"))
    """After the warm-up: `linear` and `cosine` fall to 0 at the last step, which cools a warm start that RL has stirred
    up."""
    optimizer: str = key("adamw", choices=("adamw", "sgd"))
    """`adamw`, which keeps two numbers per weight, or plain `sgd`, which keeps none."""
    adam_betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """How slowly AdamW's mean and spread of the gradient follow, each in [0, 1); no effect with `sgd`."""
    weight_decay: float = key(0.0, at_least=0.0, at_most=1.0)
    """Of AdamW, per step and learning rate."""
    max_grad_norm: float = key(1.0, above=0.0)
    """A longer gradient is scaled down to this L2 norm."""
    micro_batch_size: int = key(32, at_least=1)
    """Samples per forward, at most. The loss does not depend on it (law 5), memory does."""
    micro_batch_tokens: int | None = key(None, at_least=64)
    """Decoder positions per forward, padding included, at most: short samples are then taken more at a time than long
    ones, and clips of like length together. A longer sample stands alone. None: no such bound."""
    micro_batch_seconds: float | None = key(None, above=0.0)
    """Seconds of audio per forward, padding included, at most: what the encoder's memory follows. None: no such
    bound."""
    packing: bool = True
    """Let the samples of a prompt share one copy of it in a forward, each blind to the others: the prompt, which is
    most of a transcript's positions, is then computed once and not once per sample. Values stay the same. No effect on
    Whisper."""
    activation_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest anew: a third more work, far less
    memory."""
    offload: str = key("none", choices=("none", "optimizer", "weights"))
    """What DeepSpeed keeps in the machine's memory instead of the GPU's: the `optimizer` state (from ZeRO 1), or the
    `weights` too (ZeRO 3)."""
    freeze_encoder: bool = True
    """Keep the audio encoder as the warm start left it, as StepAudio 2.5 does."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Train the decoder by LoRA and nothing else; checkpoints are saved with LoRA merged into the weights. The KL is
    then to the same weights without LoRA, so that no second copy is kept."""
    port: int | None = key(None, at_least=1024, at_most=65_535)
    """Rendezvous of the ranks on the first learner's machine; none: a free one."""


@dataclass
class EvaluationConfig:
    """Greedy decoding of the held-out split, before and after RL."""

    every: int = key(0, at_least=0)
    """RL steps between evaluations on the way; 0: before and after only."""
    rewards: list[RewardConfig] = field(default_factory=list)
    """Terms that measure the held-out answers and train nothing; their means are logged as `heldout/NAME`."""
    normalizer: str = key("plain-1", choices=("plain-1", "whisper-1"))
    """What of a text counts in the WER: `plain-1`, words without case and punctuation; `whisper-1`, as published
    Whisper figures are measured: numbers, contractions and spellings of English get one form (2212.04356)."""
    long_form: str = key("none", choices=("none", "vad"))
    """What becomes of held-out clips longer than `backbone.window`. `none`: they are refused. `vad`: they are cut where
    a voice activity detector hears nobody speak, and the answers to the pieces are joined (docs/run.md)."""
    temperature: float = key(0.0, at_least=0.0, at_most=10.0)
    """Of the sampling; 0 takes the most likely token each time, which suits text. Speech is measured as it is heard, at
    the temperature of `rollout`: the most likely token each time falls into loops."""
    max_clips: int | None = key(None, at_least=1)
    """Evaluate only this many clips, evenly spread over the split; none: all."""
    bootstrap_samples: int = key(10_000, at_least=100)
    """Resamples of the paired bootstrap over utterances."""
    confidence: float = key(0.95, above=0.5, at_most=0.999)
    """Level of the reported intervals, as a share."""


@dataclass
class ClusterConfig:
    """Where the actors live, and how long anything may wait for them (law 3)."""

    address: str | None = None
    """A running Ray: `auto`, `host:port` or `ray://host:port`; none: `RAY_ADDRESS`, else one of its own."""
    cpus: int = key(2, at_least=1)
    """Cores of the local cluster."""
    gpus: int = key(0, at_least=0)
    """GPUs of the local cluster."""
    connect_timeout: float = key(30.0, above=0.0)
    """Seconds for a Ray address to answer."""
    start_timeout: float = key(300.0, above=0.0)
    """Seconds for all actors to be placed and ready."""
    step_timeout: float = key(600.0, above=0.0)
    """Seconds for one phase of one step."""


@dataclass
class TrackingConfig:
    """Metrics go to `metrics.jsonl` always, to Weights & Biases as this says."""

    wandb: str = key("offline", choices=("off", "offline", "online"))
    """`offline` writes files to sync later, `online` sends, which needs an account, `off` does neither."""
    project: str = "rlhf-platform"
    """The W&B project."""
    table_rows: int = key(16, at_least=0, at_most=1000)
    """Rows of the audio table logged after each evaluation."""


@dataclass
class MonitorConfig:
    """A limit on a metric of the RL steps. A metric that is not a number trips it too."""

    metric: str = MISSING
    """A name of docs/run.md, as `kl` or `reward/wer_reward`."""
    above: float | None = None
    """Trips when the metric is larger. Give this or `below`."""
    below: float | None = None
    """Trips when the metric is smaller."""
    baseline: int = key(0, at_least=0)
    """Steps at the start of the run whose mean the limit is a share of: with 5 and `below: 0.5` it trips at half of
    what the first five steps had. 0: the limit is the metric's own."""
    for_steps: int = key(1, at_least=1)
    """Steps in a row past the limit before it trips: one noisy step is no trend."""
    action: str = key("stop", choices=("warn", "stop"))
    """`stop` ends the run after a checkpoint, `warn` says a line."""


@dataclass
class CheckpointConfig:
    """What `rlhf resume` goes on from: the learner's state, the policy, and all that decides what comes next."""

    every: int = key(10, at_least=0)
    """RL steps between checkpoints, the last step included; 0 writes none, and the run cannot be resumed."""
    keep_last: int = key(2, at_least=1, at_most=1000)
    """Newest checkpoints that are kept; two, so that one stays when a disk fails under the other."""
    keep_best: int = key(1, at_least=0, at_most=1000)
    """Checkpoints that are kept for being the best by `best_by`, beside the newest."""
    best_by: str = key("reward", choices=("reward", "heldout_wer"))
    """`reward`: highest mean reward of the steps since the checkpoint before; `heldout_wer`: lowest, which needs an
    evaluation at each checkpoint (`evaluation.every`)."""


@dataclass
class Recipe:
    """A run."""

    name: str = MISSING
    """Names `runs/<name>/` and the W&B run."""
    branch: str = key("asr", choices=("asr", "tts", "realtime"))
    """What the policy learns: how prompts are built and which tokens it may write. `asr`: it hears a clip and writes
    its words; `tts`: it reads a text and speaks it; `realtime`: it hears the turns of a dialogue and answers."""
    seed: int = key(0, at_least=0)
    """Order of prompts and sampling. Weights and warm start have seeds of their own."""
    steps: int = key(40, at_least=0)
    """RL steps: rollout, reward, advantage, update, sync."""
    runs_dir: str = "runs"
    """Relative to the working directory."""
    cache_dir: str = ".cache"
    """Built data and warm starts, relative to the working directory."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The model."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where prompts come from."""
    sft: SFTConfig = field(default_factory=SFTConfig)
    """The warm start."""
    align: SFTConfig = field(default_factory=SFTConfig)
    """Before `sft`: the adaptor between encoder and decoder learns by itself, on the same clips, with all else frozen.
    For a backbone whose adaptor is new, as that of `backbone.build: small`."""
    mtp: MultiTokenConfig = field(default_factory=MultiTokenConfig)
    """After the warm start: heads that guess the tokens after the next, for `rollout.speculative`."""
    algorithm: AlgorithmConfig = field(default_factory=GRPO)
    """How rewards become a gradient; `type` says which keys there are."""
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    """What the policy speaks with; for `branch: tts`."""
    dialogue: DialogueConfig = field(default_factory=DialogueConfig)
    """How a session goes on; for `branch: realtime`."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """Generation."""
    rewards: list[RewardConfig] = field(default_factory=list)
    """The terms of the reward, summed by weight; at least one."""
    judges: list[JudgeConfig] = field(default_factory=list)
    """Language models that rewards ask."""
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    """The reward workers."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Training."""
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    """Supervised data mixed in when a measure falls."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Measuring before and after."""
    monitors: list[MonitorConfig] = field(default_factory=list)
    """Limits that a run watches itself by."""
    gate: str | None = None
    """A file of other recipes' evaluations that training must not make worse (docs/commands/gate.md), relative to the
    recipe; the start and the result are then measured by them. None: none are."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where metrics go."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """What a run can be resumed from."""
