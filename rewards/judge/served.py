"""What runs in the process of a judge's server, started by `rewards.judge.server`: vLLM's own API server.

The command `vllm serve` cannot be used as it is: with the CPU build of vLLM 0.32 it ends because it finds no version.
"""

import os
import signal
import sys
import threading

from policies.vllm_plugin import SERVER


def _end_with_parent() -> None:
    """Nothing is ever written to the standard input: when it ends, who started us is gone, and so is our group."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Arguments are those of `vllm serve`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ[SERVER] = str(os.getpid())  # killed itself, it leaves no engine behind
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    sys.argv[0] = "vllm"
    serve()


if __name__ == "__main__":
    main()
