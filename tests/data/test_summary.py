"""What a model card counts in a manifest."""

from pathlib import Path

from rlhf_platform.data import demo
from rlhf_platform.data.manifest import read_manifest
from rlhf_platform.data.summary import manifest_of, summarize
from tests.runs import write_data


def test_clips_hours_speakers_and_licences_of_each_split(tmp_path: Path) -> None:
    train, heldout = summarize(read_manifest(write_data(tmp_path)), ("train", "train", "heldout", "none"))
    assert (train.split, train.clips, train.hours, train.speakers, train.languages) == ("train", 3, 0.75, 2, ("en",))
    assert list(train.licences.items()) == [("CC0-1.0", 2), ("CC-BY-4.0", 1)]
    assert (heldout.clips, heldout.licences) == (1, {"MIT": 1})


def test_the_manifest_of_a_recipe_is_its_own_or_the_built_demo_set(tmp_path: Path) -> None:
    manifest = write_data(tmp_path / "data")
    assert manifest_of({"manifest": str(manifest)}, []) == manifest
    assert manifest_of({"manifest": str(tmp_path / "gone.jsonl")}, [tmp_path]) is None
    assert manifest_of({"demo": "recorded"}, [tmp_path]) is None
    assert manifest_of({"demo": "a set of another version"}, [tmp_path]) is None
    built = demo.folder_of("recorded", tmp_path / "cache") / "manifest.jsonl"
    built.parent.mkdir(parents=True)
    built.touch()
    assert manifest_of({"demo": "recorded"}, [tmp_path, tmp_path / "cache"]) == built
