"""The `rlhf` command. Heavy imports wait inside the commands: `rlhf validate` answers without torch."""

# Importing a module adds its commands; `rlhf --help` lists them in this order.
from rlhf_platform.cli import init, recipes, planning, running, data, rewards, history  # noqa: F401, I001
from rlhf_platform.cli import arena, pairs, judge, gate, merge, export, doctor, jobs  # noqa: F401
from rlhf_platform.cli.app import app

if __name__ == "__main__":
    app(prog_name="rlhf")
