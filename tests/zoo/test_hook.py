"""The start-up hook in fresh interpreters: light, silent, switchable, and unable to break another program."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = "_sb3_q2rl_zoo_hook"

needs_install = pytest.mark.skipif(
    importlib.util.find_spec(HOOK) is None, reason="the package is not installed: pip install -e ."
)


def python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("SB3_Q2RL_NO_ZOO", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, env={**environment, **environ}
    )


@needs_install
def test_start_up_imports_the_hook_and_nothing_else() -> None:
    program = "import sys; print(*sorted(sys.modules), sep='\\n')"
    with_hook = set(python("-c", program).stdout.split())
    without_zoo = set(python("-c", program, SB3_Q2RL_NO_ZOO="1").stdout.split())
    bare = set(python("-I", "-S", "-c", program).stdout.split())
    assert HOOK in with_hook
    assert with_hook == without_zoo
    assert HOOK not in bare
    assert not {"torch", "numpy", "typing", "importlib.util", "sb3_q2rl", "rl_zoo3"} & (with_hook - bare - editable())


def editable() -> set[str]:
    """What the finder of an editable install (setuptools' own, not ours) imports at start-up."""
    return {"typing", "importlib.util"} if any(Path(entry).name == "envs" for entry in finder_paths()) else set()


def finder_paths() -> list[str]:
    program = (
        "import sys; print(*[path for name, module in list(sys.modules.items()) if name.startswith('__editable___sb3')"
        " for path in module.MAPPING.values()], sep='\\n')"
    )
    return python("-c", program).stdout.split()


@needs_install
@pytest.mark.parametrize(("value", "waits"), [("", True), ("0", True), ("1", False)])
def test_the_environment_variable_switches_it_off(value: str, waits: bool) -> None:
    program = f"import sys, {HOOK} as hook; print(hook.ZooFinder in sys.meta_path)"
    result = python("-c", program, SB3_Q2RL_NO_ZOO=value)
    assert (result.stdout, result.stderr) == (f"{waits}\n", "")


def fake_site(folder: Path, **modules: str) -> Path:
    """A folder to import from, with a stand-in rl_zoo3 and the hook's two files."""
    shutil.copy(ROOT / f"{HOOK}.py", folder)
    shutil.copy(ROOT / "sb3_q2rl_zoo.pth", folder)
    sources = {"rl_zoo3/__init__": "", "rl_zoo3/exp_manager": "loaded = 'as usual'\n", **modules}
    for name, source in sources.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


USE_ZOO = "import site, sys; site.addsitedir(sys.argv[1]); import rl_zoo3.exp_manager as zoo; print(zoo.loaded)"


def test_a_broken_package_costs_one_line(tmp_path: Path) -> None:
    site = fake_site(tmp_path, **{"sb3_q2rl/__init__": "raise RuntimeError('half installed')\n"})
    result = python("-I", "-S", "-c", USE_ZOO, str(site))
    assert (result.returncode, result.stdout) == (0, "as usual\n")
    assert result.stderr == "sb3_q2rl: not registered in rl_zoo3: RuntimeError: half installed\n"


def test_a_working_package_is_asked_to_register_after_the_import(tmp_path: Path) -> None:
    site = fake_site(
        tmp_path,
        **{
            "sb3_q2rl/__init__": "",
            "sb3_q2rl/zoo/__init__": "",
            "sb3_q2rl/zoo/registration": (
                "def register():\n    import rl_zoo3.exp_manager as zoo\n    zoo.loaded = 'registered'\n"
            ),
        },
    )
    result = python("-I", "-S", "-c", USE_ZOO, str(site))
    assert (result.returncode, result.stdout, result.stderr) == (0, "registered\n", "")


def test_a_missing_hook_is_silent(tmp_path: Path) -> None:
    """An editable install whose checkout was deleted leaves only the .pth file behind."""
    site = fake_site(tmp_path)
    (site / f"{HOOK}.py").unlink()
    result = python("-I", "-S", "-c", USE_ZOO, str(site))
    assert (result.returncode, result.stdout, result.stderr) == (0, "as usual\n", "")


def test_a_damaged_hook_costs_one_line(tmp_path: Path) -> None:
    site = fake_site(tmp_path)
    (site / f"{HOOK}.py").write_text("not Python:\n")
    result = python("-I", "-S", "-c", USE_ZOO, str(site))
    assert (result.returncode, result.stdout) == (0, "as usual\n")
    assert "start-up hook failed: SyntaxError" in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1
