import pytest

from sb3_q2rl.envs.franka.fci import FCIConfig
from sb3_q2rl.envs.franka.tasks import find_task
from sb3_q2rl.robot.lab import Lab, load_lab

WHOLE = """
host: 172.16.0.2
gripper: {address: /dev/ttyUSB0, force_n: 30}
cameras: {workspace_serial: "130322270001", wrist_serial: "130322270002"}
remote: {host: 10.0.0.5, key: robot.key}
fci: {realtime: ignore, tool_position_m: [0, 0, 0.18]}
goal: {position_m: [0.5, 0.0, 0.1]}
limits: {low_m: [0.45, -0.1, 0.1], max_force_n: 25, travel_height_m: null}
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "lab.yaml").write_text(text)
        return load_lab(tmp_path / "lab.yaml")

    return load


def test_all_of_it_is_read(load):
    lab = load(WHOLE)
    assert lab.host == "172.16.0.2"
    assert (lab.gripper.address, lab.gripper.force_n, lab.gripper.speed_m_s) == ("/dev/ttyUSB0", 30, 0.1)
    assert lab.cameras.wrist_serial == "130322270002"
    assert (lab.remote.host, lab.remote.port) == ("10.0.0.5", 5588)
    assert lab.fci == FCIConfig(realtime="ignore", tool_position_m=(0.0, 0.0, 0.18))
    assert lab.goal.position_m == (0.5, 0.0, 0.1)


def test_limits_are_the_tasks_with_the_labs_changes(load):
    task = find_task("peg_insertion")
    limits, plain = load(WHOLE).limits_of(task), Lab().limits_of(task)
    assert limits.low_m == (0.45, -0.1, 0.1)
    assert limits.max_force_n == 25
    assert limits.high_m == plain.high_m == task.workspace_high_m


def test_an_empty_file_says_nothing(load):
    assert load("") == Lab()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hots: 172.16.0.2", "the file has 'hots'; it knows .*host"),
        ("limits: {max_force: 3}", "`limits` has 'max_force'; it knows .*max_force_n"),
        ("limits: {max_force_n: strong}", "`limits.max_force_n` is 'strong'; it must be a finite number"),
        ("limits: {low_m: [0.4, 0.1]}", "`limits.low_m` is .*; it must be a list of 3 finite numbers"),
        ("limits: {max_recoveries: 1.5}", "`limits.max_recoveries` is 1.5; it must be a whole number"),
        ("limits: {max_force_n: true}", "`limits.max_force_n` is True; it must be a finite number"),
        ("limits: {max_recoveries: .inf}", "`limits.max_recoveries` is inf; it must be a whole number"),
        ("goal: {position_m: [0.5, 0, .nan]}", "`goal.position_m` is .*; it must be a list of 3 finite numbers"),
        ("goal: {position_m: [0.5, 0, 0.1], tolerance_m: -0.01}", "in `goal`, `tolerance_m` is -0.01; .* above 0"),
        ("gripper: {address: /dev/ttyUSB0, force_n: .nan}", "`gripper.force_n` is nan; it must be a finite number"),
        ("fci: {max_force_n: .inf}", "`fci.max_force_n` is inf; it must be a finite number"),
        ("fci: {max_torque_nm: -3}", "lab.yaml: in `fci`, `max_torque_nm` is -3; it must be a finite number above 0"),
        ("fci: {translational_stiffness: 0}", "`translational_stiffness` is 0; it must be a finite number above 0"),
        ("fci: {control_hz: 0}", "`control_hz` is 0; it must be a finite number above 0"),
        ("fci: {deciding_s: 0.1}", "`deciding_s` is 0.1; it is a part of a period"),
        ("fci: {realtime: perhaps}", "`realtime` is 'perhaps'; it must be 'enforce' or 'ignore'"),
        ("fci: {tool_quaternion_xyzw: [0, 0, 0, 0]}", "`tool_quaternion_xyzw` is .*unit length"),
        ("cameras: {workspace_serial: 123, wrist_serial: '4'}", "`cameras.workspace_serial` is 123; .* quotes"),
        ("cameras: {workspace_serial: '123'}", "`cameras` needs 'wrist_serial'"),
        ("goal: [0.5, 0, 0.1]", "`goal` is .*; it must be a list of `name: value`"),
        ("host: [", "is no YAML"),
    ],
)
def test_mistakes_are_named(load, text, message):
    with pytest.raises(ValueError, match=message):
        load(text)


def test_limits_that_make_no_sense_are_refused(load):
    with pytest.raises(ValueError, match="`low_m` is above `high_m`"):
        load("limits: {low_m: [0.9, 0, 0]}").limits_of(find_task("peg_insertion"))
