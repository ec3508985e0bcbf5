"""What pip installs: the normal and the editable wheel carry the start-up file, and the mapped packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools>=77")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_start_up_file_is_at_the_root(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    junk = shutil.ignore_patterns(".*", "*.egg-info", "build", "__pycache__", "tests", "benchmarks", "logs")
    shutil.copytree(ROOT, source, ignore=junk)
    program = f"from setuptools import build_meta; build_meta.build_{kind}({str(tmp_path)!r})"
    built = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("sb3_q2rl_zoo.pth") == (ROOT / "sb3_q2rl_zoo.pth").read_bytes()
        (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
        assert "sb3_q2rl_zoo.pth" in archive.read(record).decode(), "pip uninstall removes what RECORD lists"
    if kind == "wheel":
        expected = ["_sb3_q2rl_zoo_hook.py", "sb3_q2rl/envs/d4rl.py", "sb3_q2rl/zoo_configs/qgated_sac.yml"]
        assert not set(expected) - set(names)
        assert not [name for name in names if name.startswith(("envs", "zoo_configs", "tests", "setup"))]
