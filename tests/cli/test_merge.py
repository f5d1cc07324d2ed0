"""`rlhf merge` from the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app


def test_a_merge_is_made_whole_and_overwrites_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model, out = str(tiny_checkpoint), tmp_path / "out"
    arguments = ["merge", "--base", model, model, model, "--out", str(out)]
    made = CliRunner().invoke(app, arguments)
    assert (made.exit_code, made.stdout.splitlines()[-1]) == (
        0,
        f"{out}: linear of 2 checkpoints; {out / 'merge.json'} says which",
    )
    assert (out / "model.safetensors").is_file()
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, again.stderr) == (
        2,
        f"--out is {str(out)!r}: it is there; name a new folder, nothing is overwritten\n",
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--weights", "1"], "--weights is '1': 1 for 2 checkpoints; give one for each"),
        (["--weights", "a,b"], "--weights is 'a,b': expected numbers with commas between them, as 0.7,0.3"),
        (["--scale", "2"], "--scale is 2: it is of --method task; leave it out"),
        (["--gate", "none.yaml"], "none.yaml: No such file or directory; name a file with a list named gate"),
    ],
)
def test_what_cannot_be_merged_leaves_nothing_behind(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(tiny_checkpoint)
    result = CliRunner().invoke(app, ["merge", "--base", model, model, model, "--out", "out", *extra])
    assert (result.exit_code, result.stderr) == (2, said + "\n")
    assert list(tmp_path.iterdir()) == []
