"""The package keeps its promises about names, imports, size and shapes."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer.main
from jaxtyping import Float32, TypeCheckError, jaxtyped

import floodem
from floodem.cli.main import COMMANDS, build_app
from typechecker import check, modules_with_shapes

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in (SOURCE / "floodem").rglob("*.py")
)
IMPORTABLE = [name for name in MODULES if name != "floodem.__main__"]
CORE = (
    "floodem.volumes",
    "floodem.network",
    "floodem.labels",
    "floodem.flooding",
    "floodem.training",
)
CORE_PACKAGES = ("torch", "numpy", "scipy", "h5py", "safetensors", "jaxtyping")
MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 60


def direct_dependencies():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [
        re.split(r"[\[<>=]", line)[0]
        for lines in (project["dependencies"], *extras)
        for line in lines
        if not line.startswith("floodem")
    ]


def run_script(script, names):
    """Run Python afresh with a list of names, and return what it prints."""
    begin = "import importlib, sys\nnames = sys.argv[1:]\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + script, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
    return done.stdout


@pytest.mark.parametrize("name", floodem.__all__)
def test_every_public_name_is_there(name):
    value = getattr(floodem, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+", value)
    else:
        assert inspect.isclass(value) or inspect.isfunction(value)
        assert value.__doc__


def test_a_package_gives_its_names_also_after_all_its_modules_were_imported():
    printed = run_script(
        "for name in names: importlib.import_module(name)\n"
        "for package in names:\n"
        "    for name in getattr(sys.modules[package], '__all__', ()):\n"
        "        value = getattr(sys.modules[package], name)\n"
        "        if isinstance(value, type(sys)) and hasattr(value, name): print(package, name)\n",
        IMPORTABLE[1:],
    )
    assert printed == "", "a module hides the public thing of the same name"


def test_public_names_are_listed_and_unknown_ones_refused():
    assert set(floodem.__all__) <= set(dir(floodem))
    with pytest.raises(AttributeError, match="segmnt"):
        _ = floodem.segmnt


def test_the_names_for_mypy_are_those_that_are_loaded():
    tree = ast.parse((SOURCE / "floodem" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: statement.module for statement in block.body for alias in statement.names
    }
    assert declared == floodem._HOMES
    assert {*declared, "__version__"} == set(floodem.__all__)


def test_the_core_imports_on_a_bare_machine():
    others = sorted(
        {*direct_dependencies(), *("PIL", "cc3d", "google_crc32c", "pydantic", "skimage")}
    )
    absent = [name for name in others if name not in CORE_PACKAGES]
    run_script(
        f"for name in {absent}: sys.modules[name] = None\n"
        "for name in names: importlib.import_module(name)\n"
        "import floodem\n"
        "floodem.open_volume, floodem.segment, floodem.load_model, floodem.train\n",
        [name for name in MODULES if name.startswith(CORE)],
    )


def test_importing_every_module_loads_no_optional_package():
    printed = run_script(
        "for name in names: importlib.import_module(name)\n"
        "print({'neuroglancer', 'dask', 'tensorstore', 'cc3d', 'tifffile'} & set(sys.modules))\n",
        IMPORTABLE,
    )
    assert printed.strip() == "set()"


@pytest.mark.parametrize("module", MODULES)
def test_no_file_and_no_function_is_too_long(module):
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - first_statement(node).lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{module}.{node.name} has {lines} lines"


def first_statement(function):
    """Where a function's work begins: a command's options and the docstring do not count."""
    has_docstring = ast.get_docstring(function) is not None
    return function.body[1 if has_docstring and len(function.body) > 1 else 0]


def test_every_direct_dependency_is_pinned_once_and_plainly():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9a-z.]+", pin) for pin in pins), pins
    names = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(set(names)) == len(names)
    assert {name.lower() for name in direct_dependencies()} <= set(names)


def test_shapes_are_checked_while_tests_run():
    @jaxtyped(typechecker=check)
    def halve(image: Float32[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z y x"]:
        return image[:1]

    with pytest.raises(TypeCheckError, match="parameter 'image'"):
        halve(np.zeros((2, 2), np.float32))
    with pytest.raises(TypeCheckError, match="return value"):
        halve(np.zeros((2, 2, 2), np.float32))


def test_the_modules_that_name_shapes_are_under_that_check():
    checked = modules_with_shapes()
    assert "floodem.network.conv_stack" in checked
    module = importlib.import_module("floodem.network.conv_stack")
    assert type(module.__loader__).__module__.startswith("jaxtyping")


def test_the_commands_of_the_readme_exist_with_their_options():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line[2:].split() for line in re.findall(r"^\$ floodem .*", readme, re.MULTILINE)]
    assert len(lines) >= 5
    for _, name, *words in lines:
        assert name in COMMANDS
        listed = typer.main.get_command(build_app([name])).commands[name].params
        known = {flag for option in listed for flag in (*option.opts, *option.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{name} {word}"


def test_the_python_of_the_readme_names_what_exists():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert blocks
    for node in ast.walk(ast.parse("".join(blocks))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "floodem":
            assert node.attr in floodem.__all__


@pytest.mark.slow
def test_the_suite_passes_in_a_japanese_folder_on_a_cp932_console(tmp_path):
    if not (REPOSITORY / ".git").exists():
        pytest.skip("this is no git checkout: the list of its files is unknown")
    copy = tmp_path / "生体 データ" / "floodem"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, copy / name)
    settings = {
        **os.environ,
        "PYTHONIOENCODING": "cp932",
        "PYTHONUTF8": "0",
        "PYTHONPATH": str(copy / "src"),
        "FLOODEM_DATA": str(REPOSITORY.parent / "shared" / "data"),
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    # Long, and about voxels rather than names.
    left_out = ["--ignore", "tests/test_golden.py", "--ignore", "tests/test_kill.py"]
    basetemp = tmp_path / "一時 フォルダ"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--basetemp", str(basetemp), *left_out],
        cwd=copy,
        capture_output=True,
        env=settings,
        check=False,
        timeout=1800,
    )
    printed = done.stdout.decode("cp932") + done.stderr.decode("cp932")
    assert done.returncode == 0, printed
    assert " passed" in printed
