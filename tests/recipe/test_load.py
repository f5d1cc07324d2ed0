"""Loading: layers, overrides, environment, paths, and each refusal of form with its words."""

# ruff: noqa: E501 - messages are kept on one line, as they are printed

from pathlib import Path

import pytest

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.algorithm_names import ALGORITHMS
from rlhf_platform.recipe.algorithms import DAPO
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.recipe.schema import Recipe


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def load(text: str, *overrides: str) -> LoadedRecipe:
    return load_recipe(write("r.yaml", text), overrides)


def refusals(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load(text, *overrides)
    return str(raised.value).splitlines()


def test_a_loaded_recipe_is_a_real_dataclass_with_defaults_filled_in() -> None:
    recipe = load("name: a\nlearner: {learning_rate: 1e-4}\n").recipe
    assert type(recipe) is Recipe
    assert (recipe.name, recipe.learner.learning_rate, recipe.learner.workers) == ("a", 1e-4, 1)


def test_later_layers_win_and_sections_are_merged_key_by_key() -> None:
    write("base/one.yaml", "steps: 1\nseed: 1\nsft: {steps: 1, seed: 1}\n")
    write("base/two.yaml", "seed: 2\nsft: {seed: 2}\n")
    loaded = load("extends: [base/one.yaml, base/two.yaml]\nname: a\nsft: {batch_size: 7}\n", "seed=3", "seed=4")
    recipe = loaded.recipe
    assert (recipe.steps, recipe.seed) == (1, 4)
    assert (recipe.sft.steps, recipe.sft.seed, recipe.sft.batch_size) == (1, 2, 7)
    assert [path.name for path in loaded.sources] == ["one.yaml", "two.yaml", "r.yaml"]


def test_a_list_is_replaced_as_a_whole() -> None:
    write("base.yaml", "rewards: [{fn: 'a:b', weight: 3}, {fn: 'a:c'}]\n")
    recipe = load("extends: base.yaml\nname: a\nrewards: [{fn: 'd:e'}]\n").recipe
    assert [(reward.fn, reward.weight) for reward in recipe.rewards] == [("d:e", 1.0)]
    overridden = load("name: a\n", "rewards=[{fn: f:g, kwargs: {k: [1, 2]}}]").recipe
    assert (overridden.rewards[0].fn, overridden.rewards[0].kwargs) == ("f:g", {"k": [1, 2]})


def test_a_list_of_words_is_read_and_replaced_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYER", "k_proj")
    assert load("name: a\n").recipe.learner.lora.targets == []
    recipe = load("name: a\nlearner: {lora: {targets: [q_proj, '${oc.env:LAYER}']}}\n").recipe
    assert recipe.learner.lora.targets == ["q_proj", "k_proj"]
    write("base.yaml", "learner: {lora: {targets: [q_proj, k_proj]}}\n")
    recipe = load("extends: base.yaml\nname: a\n", "learner.lora.targets=[v_proj]").recipe
    assert recipe.learner.lora.targets == ["v_proj"]


def test_a_whole_number_is_a_number_in_a_list_too() -> None:
    assert load("name: a\nrewards: [{fn: 'a:b', range: [0, 1.5]}]\n").recipe.rewards[0].range == [0.0, 1.5]
    assert refusals("name: a\nrewards: [{fn: 'a:b', range: [0, true]}]\n") == [
        "rewards[0].range is [0, True]: expected a list of a number (r.yaml:2)"
    ]
    assert len(refusals("name: a\nlearner: {lora: {targets: [1]}}\n")) == 1
    huge = "1" + 400 * "0"
    assert refusals(f"name: a\nrewards: [{{fn: 'a:b', weight: {huge}}}]\n") == [
        f"rewards[0].weight is {huge}: expected a number (r.yaml:2)"
    ]


def test_two_files_may_extend_the_same_third() -> None:
    write("root.yaml", "seed: 5\n")
    write("left.yaml", "extends: root.yaml\n")
    write("right.yaml", "extends: root.yaml\n")
    assert load("extends: [left.yaml, right.yaml]\nname: a\n").recipe.seed == 5


def test_a_circle_of_extends_is_refused_with_its_chain() -> None:
    write("b.yaml", "extends: c/c.yaml\n")
    write("c/c.yaml", "extends: ../r.yaml\n")
    assert refusals("extends: b.yaml\nname: a\n") == [
        "extends goes in a circle: r.yaml -> b.yaml -> c/c.yaml -> r.yaml; take one of them out"
    ]


def test_a_missing_file_is_refused_with_the_nearest() -> None:
    write("base/tiny.yaml", "")
    assert refusals("extends: base/tny.yaml\nname: a\n") == [
        "base/tny.yaml: no such recipe (extended by r.yaml); did you mean base/tiny.yaml?"
    ]
    with pytest.raises(RecipeError, match=r"^nothing/x\.yaml: no such recipe; check the path$"):
        load_recipe("nothing/x.yaml")


def test_extends_must_be_paths_in_a_file() -> None:
    assert refusals("extends: 3\nname: a\n", "extends=b.yaml") == [
        "extends is 3: expected a relative path or a list of them (r.yaml:1)",
        "override 'extends=b.yaml': extends stands in a recipe file, not on the command line",
    ]


def test_a_mistake_inside_a_list_item_names_its_own_line() -> None:
    assert refusals("name: a\nrewards:\n- fn: a:b\n- fn: a:c\n  wieght: 2\n") == [
        "rewards[1].wieght: unknown key; did you mean rewards[1].weight? (r.yaml:5)"
    ]


def test_choosing_an_algorithm_by_name_brings_its_published_values() -> None:
    published = {kind: load(f"name: a\nalgorithm: {{type: {kind}}}\n").recipe.algorithm for kind in ALGORITHMS}
    assert published == {kind: keys() for kind, keys in ALGORITHMS.items()}
    assert load("name: a\n").recipe.algorithm == published["grpo"]


def test_the_last_file_that_names_an_algorithm_decides_which_keys_there_are() -> None:
    write("base.yaml", "algorithm: {type: dapo, group_size: 4, clip_ratio_high: 0.3}\n")
    assert load("extends: base.yaml\nname: a\n").recipe.algorithm == DAPO(group_size=4, clip_ratio_high=0.3)
    assert refusals("extends: base.yaml\nname: a\nalgorithm: {type: cispo}\n") == [
        "algorithm.clip_ratio_high: a key of dapo, gspo; cispo takes type, group_size, kl_coef, reference_every, epochs, "
        "minibatches, normalization, train_tokens, train_turns, kl_in, kl_estimator, kl_target, entropy_coef, "
        "entropy_target, importance, importance_cap, ratio_cap (base.yaml:1)"
    ]


def test_each_value_knows_the_file_line_or_override_it_came_from() -> None:
    write("base.yaml", "seed: 1\nrewards:\n  - fn: a:b\n    weight: 2\n")
    origins = load("extends: base.yaml\nname: a\nrewards:\n  - fn: c:d\n", "steps=3").origins
    assert origins == {
        "seed": "base.yaml:1",
        "name": "r.yaml:2",
        "rewards": "r.yaml:3",
        "rewards[0].fn": "r.yaml:4",
        "steps": "on the command line",
    }


def test_an_override_may_change_one_item_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: a\nrewards:\n  - {fn: a:b, kwargs: {x: 1, y: 2}}\n  - {fn: c:d}\n")
    (first, second) = load_recipe(
        path, ["rewards[0].kwargs.x=3", "rewards.1.weight=0.5", "rewards[0].name=e"]
    ).recipe.rewards
    assert (first.fn, first.kwargs, first.name, second.weight) == ("a:b", {"x": 3, "y": 2}, "e", 0.5)
    with pytest.raises(RecipeError, match=r"rewards\[1\].wieght: unknown key; did you mean rewards\[1\].weight\?"):
        load_recipe(path, ["rewards[1].wieght=2"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learner.cpu=2", "learner.cpu: unknown key; did you mean learner.cpus? (on the command line)"),
        ("learner.cpus=x", "learner.cpus is 'x': expected a whole number (on the command line)"),
        ("rewards.0.weight=2", "rewards is a list: override it as a whole, for example rewards=[{...}] (on the command line)"),
        ("learner.lora.targets.0=a", "learner.lora.targets is a list: override it as a whole, for example targets=[a, b] (on the command line)"),
        ("steps", "override 'steps': expected key=value, for example learner.cpus=2"),
        ("=3", "override '=3': expected key=value, for example learner.cpus=2"),
    ],
)  # fmt: skip
def test_a_mistaken_override_is_one_line(override: str, expected: str) -> None:
    assert refusals("name: a\n", override) == [expected]


def test_an_override_that_is_no_yaml_says_so() -> None:
    (line,) = refusals("name: a\n", "rewards=[{fn: a:b")
    assert line.startswith("override 'rewards=[{fn: a:b': not valid YAML: ")


def test_all_mistakes_are_told_at_once_with_the_file_each_stands_in() -> None:
    write("base.yaml", "learner: {lr: 1, cpus: x}\n")
    assert refusals("extends: base.yaml\nnmae: a\n", "steps=many") == [
        "learner.lr: unknown key; did you mean learner.learning_rate? (base.yaml:1)",
        "learner.cpus is 'x': expected a whole number (base.yaml:1)",
        "nmae: unknown key; did you mean name? (r.yaml:2)",
        "steps is 'many': expected a whole number (on the command line)",
        "name is missing: it has no default, set it in r.yaml",
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("name: a\nsteps: [1\nseed: 2\n", "r.yaml:3: not valid YAML: "),
        ("name: a\nname: b\n", "r.yaml:2: not valid YAML: found duplicate key"),
        ("name: a\nsft:\n\tsteps: 1\n", "r.yaml:3: not valid YAML: "),
        ("- a\n", "r.yaml: expected keys at the top level (`name: ...`), found a list"),
        ("3\n", "r.yaml: cannot be read as a YAML file"),
        ("name: ${\n", "r.yaml: "),
    ],
)
def test_a_file_that_is_no_recipe_names_file_and_line(text: str, start: str) -> None:
    (line,) = refusals(text)
    assert line.startswith(start)


def test_a_folder_and_a_file_that_is_not_text_are_refused() -> None:
    Path("folder.yaml").mkdir()
    Path("bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    for name in ("folder.yaml", "bytes.yaml"):
        with pytest.raises(RecipeError, match=rf"^{name}: cannot be read as a YAML file: .+$"):
            load_recipe(name)


def test_a_value_from_the_environment_is_used_but_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORES", "4")
    monkeypatch.setenv("TOKEN", "secret")
    loaded = load(
        "name: a\nlearner: {cpus: '${oc.env:CORES}'}\nrewards: [{fn: 'a:b', kwargs: {token: '${oc.env:TOKEN}'}}]\n"
    )
    assert loaded.recipe.learner.cpus == 4
    assert loaded.recipe.rewards[0].kwargs == {"token": "secret"}
    assert "${oc.env:TOKEN}" in loaded.yaml
    assert "secret" not in loaded.yaml


def test_only_variables_that_are_set_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("WORD", "secret")
    assert refusals("name: ${oc.env:NOWHERE}\nsteps: ${seed}\nlearner: {cpus: '${oc.env:WORD}'}\n") == [
        "name is '${oc.env:NOWHERE}': the environment variable NOWHERE is not set; set it or write the value (r.yaml:1)",
        "steps is '${seed}': only ${oc.env:NAME} may stand in ${...} (r.yaml:2)",
        "learner.cpus is '${oc.env:WORD}': expected a whole number (r.yaml:3)",
    ]
    nested = "name: a\nrewards: [{fn: 'a:b', kwargs: {k: ['${oc.decode:1}']}}]\n"
    (line,) = refusals(nested)
    assert line.startswith("rewards[0].kwargs is ")
    assert "only ${oc.env:NAME} may stand in ${...}" in line


def test_relative_paths_belong_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "/store")
    (tmp_path / "base/model").mkdir(parents=True)
    write("base/b.yaml", "data: {manifest: m.jsonl}\nbackbone: {path: model}\nrewards: [{fn: '../f.py:g'}]\n")
    recipe = load("extends: base/b.yaml\nname: a\n").recipe
    assert recipe.data.manifest == str(tmp_path / "base/m.jsonl")
    assert recipe.backbone.path == str(tmp_path / "base/model")
    assert recipe.rewards[0].fn == f"{tmp_path}/f.py:g"

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    overrides = ["data.manifest=n.jsonl", "backbone.path=owner/model", "rewards=[{fn: pkg.mod:h}]"]
    recipe = load_recipe(tmp_path / "r.yaml", overrides).recipe
    assert recipe.data.manifest == str(tmp_path / "elsewhere/n.jsonl")
    assert recipe.backbone.path == "owner/model"
    assert recipe.rewards[0].fn == "pkg.mod:h"
    assert load_recipe(tmp_path / "r.yaml", ["data.manifest=${oc.env:STORE}/m"]).recipe.data.manifest == "/store/m"


def test_an_unquoted_off_is_the_word_where_the_word_is_a_choice() -> None:
    assert load("name: a\ntracking: {wandb: off}\n").recipe.tracking.wandb == "off"
    assert load("name: a\n", "tracking.wandb=off").recipe.tracking.wandb == "off"


def test_the_resolved_yaml_loads_again_from_another_folder_as_the_same_recipe(tmp_path: Path) -> None:
    loaded = load("name: a\ndata: {manifest: m.jsonl}\nrewards: [{fn: f.py:g, kwargs: {k: null}}]\n", "seed=3")
    again = write("runs/a/recipe.yaml", loaded.yaml)
    assert load_recipe(again).recipe == loaded.recipe
    assert (loaded.path, loaded.base_dir) == (tmp_path / "r.yaml", tmp_path)


def test_an_item_that_an_override_changes_keeps_the_paths_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "name: a\ndata: {demo: dialogue}\njudges: [{name: j, model: smollm2, lora: near}]\n"
        "rewards: [{fn: 'mine.py:brevity', weight: 1}]\n"
    )
    recipe = load_recipe(tmp_path / "r.yaml", ["rewards[0].weight=2", "judges[0].threads=2"]).recipe
    assert recipe.rewards[0].fn == f"{tmp_path / 'mine.py'}:brevity"
    assert (recipe.judges[0].lora, recipe.judges[0].model) == (str(tmp_path / "near"), "smollm2")
