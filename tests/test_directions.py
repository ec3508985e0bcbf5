"""The import directions of the house: who may know whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sb3_q2rl"

# room: what it must not import, by prefix
FORBIDDEN = {
    ROOT / "envs": ["sb3_q2rl.bc", "sb3_q2rl.common", "sb3_q2rl.q2rl", "sb3_q2rl.baselines", "stable_baselines3"],
    PACKAGE / "bc": ["sb3_q2rl.common", "sb3_q2rl.q2rl", "sb3_q2rl.baselines", "sb3_q2rl.envs", "stable_baselines3"],
    PACKAGE / "data": ["sb3_q2rl.common", "sb3_q2rl.q2rl", "sb3_q2rl.baselines", "sb3_q2rl.envs", "stable_baselines3"],
    PACKAGE / "common": ["sb3_q2rl.q2rl", "sb3_q2rl.baselines", "sb3_q2rl.envs"],
    PACKAGE / "q2rl": ["sb3_q2rl.baselines", "sb3_q2rl.envs"],
    PACKAGE / "baselines": ["sb3_q2rl.q2rl", "sb3_q2rl.envs"],
    PACKAGE / "demos": ["sb3_q2rl.bc", "sb3_q2rl.common", "sb3_q2rl.q2rl", "sb3_q2rl.baselines", "stable_baselines3"],
    PACKAGE: ["sb3_q2rl.zoo"],
}
ALLOWED = {
    # turns SB3's own policies into BC policies
    PACKAGE / "bc" / "readers" / "sb3.py": ["stable_baselines3"],
    # the interval of a success rate
    PACKAGE / "demos" / "cli.py": ["sb3_q2rl.bc"],
}


def imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the module's full name"
            assert node.module is not None
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("room", [room for room in FORBIDDEN if room.exists()], ids=lambda room: room.name)
def test_nobody_imports_against_the_directions(room):
    files = [file for file in room.rglob("*.py") if PACKAGE / "zoo" not in file.parents]
    assert files
    for file in files:
        for module in imported_modules(file):
            for forbidden in set(FORBIDDEN[room]) - set(ALLOWED.get(file, ())):
                assert not f"{module}.".startswith(f"{forbidden}."), f"{file.relative_to(ROOT)} imports {module}"


def test_the_test_itself_sees_an_import(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("import a.b\ndef f():\n    from c.d import e\n")
    assert imported_modules(file) == {"a.b", "c.d.e"}
