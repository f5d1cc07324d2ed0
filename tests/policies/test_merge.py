"""Merged weights against values computed by hand, what is refused, and a merged backbone loaded anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies.load import load_adapter
from policies.merge import Merge, merge
from policies.speaking import SpeechLayout
from rlhf_platform.errors import RunError
from tests.speaking import LAYOUT, write_speaking_checkpoint

MEAN = Merge("linear", (0.75, 0.25))
HALVES = Merge("linear", (0.5, 0.5))


def stored(folder: Path, tensors: dict[str, Tensor] | list[dict[str, Tensor]], **config: object) -> Path:
    """A checkpoint of bare tensors, in as many files, with the tokenizer of three words."""
    folder.mkdir()
    files = tensors if isinstance(tensors, list) else [tensors]
    for number, each in enumerate(files, start=1):
        save_file(each, folder / f"model-{number:05d}-of-{len(files):05d}.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen2", "text_config": {"hidden_size": 2}, **config})
    )
    write_tokenizer(folder, ["<unk>", "a", "b"])
    return folder


def write_tokenizer(folder: Path, words: list[str]) -> None:
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def merged(folder: Path, base: Path, *models: Path, how: Merge) -> dict[str, Tensor]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    merge(base, models, how, out)
    found: dict[str, Tensor] = {}
    for file in out.glob("*.safetensors"):
        found |= load_file(file)
    return found


def test_the_mean_and_the_task_vectors_are_those_by_hand(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", {"w": torch.tensor([1.0, 2.0])})
    a = stored(tmp_path / "a", {"w": torch.tensor([3.0, 2.0])})
    b = stored(tmp_path / "b", {"w": torch.tensor([1.0, -2.0])})
    # 0.75 * 3 + 0.25 * 1, 0.75 * 2 - 0.25 * 2
    assert merged(tmp_path, base, a, b, how=MEAN)["w"].tolist() == [2.5, 1.0]
    # 1 + 2 * (1 * 2 + 0.5 * 0), 2 + 2 * (1 * 0 + 0.5 * -4)
    assert merged(tmp_path, base, a, b, how=Merge("task", (1.0, 0.5), 2.0))["w"].tolist() == [5.0, -2.0]
    # Equal weights of one in sum: both methods are the mean.
    assert merged(tmp_path, base, a, b, how=Merge("task", (0.5, 0.5)))["w"].tolist() == [2.0, 0.0]
    assert merged(tmp_path, base, a, b, how=HALVES)["w"].tolist() == [2.0, 0.0]
    # What was learnt is taken away again.
    assert merged(tmp_path, base, a, how=Merge("task", (-1.0,)))["w"].tolist() == [-1.0, 2.0]


def test_sums_are_in_float32_and_the_result_is_of_the_bases_type(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", {"w": torch.tensor([256.0], dtype=torch.bfloat16)})
    # In bfloat16 256 + 1 is 256: each addend would be lost by itself.
    models = [stored(tmp_path / name, {"w": torch.tensor([257.0])}, dtype="float32") for name in "ab"]
    found = merged(tmp_path, base, *models, how=Merge("task", (1.0, 1.0)))["w"]
    assert (found.dtype, found.tolist()) == (torch.bfloat16, [258.0])


def test_files_are_as_the_base_has_them_however_the_others_are_cut(tmp_path: Path) -> None:
    one, two = {"v": torch.zeros(2), "n": torch.tensor([7])}, {"w": torch.ones(3)}
    base = stored(tmp_path / "base", [one, two])
    (base / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    for name in ("README.md", "NOTICE.txt", "merge.json"):
        (base / name).write_text(name)
    (base / "mtp").mkdir()
    whole = stored(tmp_path / "a", one | {"v": torch.ones(2), "w": torch.full((3,), 3.0)})
    found = merged(tmp_path, base, whole, how=Merge("linear", (1.0,)))
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"v": [1, 1], "n": [7], "w": [3, 3, 3]}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "NOTICE.txt",
        "config.json",
        "merge.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    said = json.loads((tmp_path / "out/merge.json").read_text())
    assert (said["method"], said["models"][0]["weight"], said["base"]["path"]) == ("linear", 1.0, str(base))
    assert said["base"]["sha256"] != said["models"][0]["sha256"]


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        ({"w": torch.zeros(3)}, {}, r"w has shape \(2,\) and \(3,\)"),
        ({"v": torch.zeros(2)}, {}, "has no w, 1 tensors"),
        ({"w": torch.zeros(2), "v": torch.zeros(2)}, {}, "base has no v, 1 tensors"),
        ({"w": torch.zeros(2)}, {"text_config": {"hidden_size": 3}}, r"differ in text_config.hidden_size \(2 and 3\)"),
        ({"w": torch.tensor([torch.inf, 0.0])}, {}, "w is not finite once merged"),
        ({"w": torch.zeros(2)}, {"dtype": "float16", "transformers_version": "4", "use_cache": False}, ""),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], config: dict[str, object], said: str
) -> None:
    base, model = stored(tmp_path / "base", {"w": torch.zeros(2)}), stored(tmp_path / "a", tensors, **config)
    if not said:
        assert merged(tmp_path, base, model, how=Merge("linear", (1.0,)))["w"].tolist() == [0, 0]
        return
    with pytest.raises(RunError, match=said):
        merged(tmp_path, base, model, how=Merge("linear", (1.0,)))


def test_vocabularies_and_counts_that_differ_are_refused(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", {"n": torch.tensor([1])})
    other = stored(tmp_path / "a", {"n": torch.tensor([2])})
    with pytest.raises(RunError, match="n has other whole numbers"):
        merged(tmp_path, base, other, how=Merge("linear", (1.0,)))
    write_tokenizer(other, ["<unk>", "b", "a"])
    with pytest.raises(RunError, match="vocabularies differ in 2 tokens; 'a' is 1 and 2"):
        merged(tmp_path, base, other, how=Merge("linear", (1.0,)))
    shutil.rmtree(other)
    other.mkdir()
    (other / "adapter_config.json").write_text("{}")
    with pytest.raises(RunError, match="it holds LoRA alone"):
        merged(tmp_path, base, other, how=Merge("linear", (1.0,)))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Merge("linear", (0.5, 0.6)), "--weights 0.5,0.6: a mean has weights .* sum to 1; give 0.5,0.5"),
        (Merge("linear", (1.5, -0.5)), "at least 0"),
        (Merge("linear", (0.5, 0.5), 2.0), "--scale is 2: it is of --method task"),
        (Merge("task", (float("nan"), 1.0)), "finite numbers are needed"),
    ],
)
def test_weights_that_are_no_mean_are_refused(how: Merge, said: str) -> None:
    with pytest.raises(RunError, match=said):
        how.check()


def test_a_merged_backbone_loads_and_speaks_as_the_one_that_could(tiny_checkpoint: Path, tmp_path: Path) -> None:
    base = load_adapter("qwen3_asr", tiny_checkpoint).load_model(torch.float32)
    branches = []
    for number, name in enumerate(("hears", "speaks")):
        adapter = load_adapter("qwen3_asr", tiny_checkpoint)
        model = adapter.load_model(torch.float32)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        adapter.save(model, tmp_path / name)
        branches.append(model)
    write_speaking_checkpoint(tmp_path / "speaks", tmp_path / "with layout", characters="ab")
    (tmp_path / "out").mkdir()
    merge(tiny_checkpoint, [tmp_path / "hears", tmp_path / "with layout"], Merge("task", (1.0, 0.5)), tmp_path / "out")
    layout = SpeechLayout.read(tmp_path / "out")
    assert layout is not None
    assert (layout.codebooks, layout.characters) == (LAYOUT.codebooks, "ab")
    (tmp_path / "out/speech.json").unlink()
    adapter = load_adapter("qwen3_asr", tmp_path / "out")
    found = dict(adapter.load_model(torch.float32).named_parameters())
    hears, speaks = (dict(model.named_parameters()) for model in branches)
    for name, start in base.named_parameters():
        expected = start + (hears[name] - start) + 0.5 * (speaks[name] - start)
        torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-6)
    assert adapter.tokenizer.get_vocab() == load_adapter("qwen3_asr", tiny_checkpoint).tokenizer.get_vocab()


def test_two_that_speak_differently_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "a")
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "b", codebooks=(8, 8))
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match=r"differ in codebooks \(\(8, 4, 4\) and \(8, 8\)\): they do not speak alike"):
        merge(tiny_checkpoint, [tmp_path / "a", tmp_path / "b"], HALVES, tmp_path / "out")
