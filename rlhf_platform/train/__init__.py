"""The training loops. Importing this package settles what libraries read from the environment as they are imported."""

import os

PROCESS_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Of every process of a run: no report to anyone (law 10), and no bars or notices among the run's own lines."""

os.environ |= PROCESS_ENVIRONMENT
