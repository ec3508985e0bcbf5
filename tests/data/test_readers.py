"""Readers, each against a small file written in the layout of the library it comes from."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from sb3_q2rl.data import Demonstrations, save_npz

RNG = np.random.default_rng(0)
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def actions(n, dim=2):
    return RNG.uniform(-1, 1, (n, dim)).astype(np.float32)


def observations(n, dim=3):
    return RNG.normal(size=(n, dim)).astype(np.float32)


# --- npz


def write_plain_npz(path, **extra):
    arrays = {
        "observations": observations(7),
        "actions": actions(7),
        "rewards": np.arange(7.0),
        "episode_ends": np.array([3, 7]),
    }
    np.savez(path, **(arrays | extra))
    return arrays | extra


def test_npz_without_last_observations_drops_the_cut_step(tmp_path):
    arrays = write_plain_npz(tmp_path / "d.npz")
    demonstrations = Demonstrations.load(tmp_path / "d.npz")
    kept = [0, 1, 3, 4, 5]
    assert demonstrations.rewards.tolist() == kept
    np.testing.assert_array_equal(demonstrations.next_observations, arrays["observations"][[1, 2, 4, 5, 6]])
    assert demonstrations.truncated.tolist() == [False, True, False, False, True]
    assert not demonstrations.terminated.any()


def test_npz_keeps_the_last_step_of_an_episode_that_terminated(tmp_path):
    terminated = np.array([0, 0, 1, 0, 0, 0, 0])
    write_plain_npz(tmp_path / "d.npz", terminated=terminated)
    demonstrations = Demonstrations.load(tmp_path / "d.npz")
    assert demonstrations.rewards.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.flatnonzero(demonstrations.terminated).tolist() == [2]
    assert np.flatnonzero(demonstrations.truncated).tolist() == [5]


@pytest.mark.parametrize("as_dict", [False, True])
def test_npz_round_trip(tmp_path, as_dict):
    obs, next_obs = observations(5), observations(5)
    image = RNG.integers(0, 255, (5, 4, 4, 3), dtype=np.uint8)
    demonstrations = Demonstrations(
        observations={"state": obs, "image": image} if as_dict else obs,
        next_observations={"state": next_obs, "image": image} if as_dict else next_obs,
        actions=actions(5),
        rewards=np.ones(5, dtype=np.float32),
        terminated=np.array([0, 1, 0, 0, 0], dtype=bool),
        truncated=np.array([0, 0, 0, 0, 1], dtype=bool),
        episode_ends=np.array([2, 5]),
        source="human",
    )
    loaded = Demonstrations.load(save_npz(demonstrations, tmp_path / "sub" / "d.npz"))
    assert loaded.source == "human"
    for name in ("actions", "rewards", "terminated", "truncated", "episode_ends"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(demonstrations, name))
    for name in ("observations", "next_observations"):
        ours, theirs = getattr(loaded, name), getattr(demonstrations, name)
        for key in ("state", "image") if as_dict else (slice(None),):
            np.testing.assert_array_equal(ours[key], theirs[key])
            assert ours[key].dtype == theirs[key].dtype


def test_npz_names_what_is_missing_and_does_not_unpickle(tmp_path):
    np.savez(tmp_path / "d.npz", actions=actions(3))
    with pytest.raises(ValueError, match="lacks the arrays episode_ends, observations, rewards"):
        Demonstrations.load(tmp_path / "d.npz")
    write_plain_npz(tmp_path / "e.npz", rewards=np.array([object()] * 7, dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        Demonstrations.load(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"observations": observations(9)},
            r"`observations` has the shape \(9, 3\).*each of the 7 actions",
        ),
        ({"observations": observations(7), "next_observations": observations(6)}, "`next_observations` has the shape"),
        ({"rewards": np.zeros(8)}, "`rewards` has the shape"),
        ({"actions": np.zeros(7)}, r"d.npz: `actions` has the shape \(7,\), expected \(n, action_dim\)"),
        ({"episode_ends": np.array(7)}, r"d.npz: `episode_ends` has the shape \(\), expected \(n_episodes,\)"),
        ({"episode_ends": np.array([[3, 7]])}, r"d.npz: `episode_ends` has the shape \(1, 2\), expected"),
        ({"terminated": np.ones(2, dtype=bool)}, "`terminated` has the shape"),
        ({"terminated": np.arange(7) == 1}, "`terminated` is true in 1 rows that end no episode, the first is row 1"),
    ],
)
def test_npz_of_columns_that_do_not_fit(tmp_path, wrong, message):
    write_plain_npz(tmp_path / "d.npz", **wrong)
    with pytest.raises(ValueError, match=message):
        Demonstrations.load(tmp_path / "d.npz")


@pytest.mark.parametrize("seed", range(30))
def test_damaged_npz_is_told_with_the_name_of_the_file(tmp_path, seed):
    path, rng = tmp_path / "d.npz", np.random.default_rng(seed)
    save_npz(Demonstrations.load("adroit-pen-dapg"), path)
    content = bytearray(path.read_bytes())
    for position in [*rng.integers(len(content), size=3), *rng.integers(100, size=1)]:
        content[position] = rng.integers(256)
    path.write_bytes(content)
    try:
        Demonstrations.load(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_clipping_is_asked_for(tmp_path):
    write_plain_npz(tmp_path / "d.npz", actions=np.full((7, 2), 1.5, dtype=np.float32))
    with pytest.raises(ValueError, match=r"10 of 10 entries .*clip_actions=True"):
        Demonstrations.load(tmp_path / "d.npz")
    assert (Demonstrations.load(tmp_path / "d.npz", clip_actions=True).actions == 1).all()


# --- D4RL


def write_d4rl(path, *, terminals, timeouts=None, next_observations=None, n=6):
    columns = {"observations": observations(n), "actions": actions(n), "rewards": np.arange(float(n))}
    with h5py.File(path, "w") as file:
        for name, value in columns.items():
            file[name] = value
        file["terminals"] = np.array(terminals, dtype=bool)
        if timeouts is not None:
            file["timeouts"] = np.array(timeouts, dtype=bool)
        if next_observations is not None:
            file["next_observations"] = next_observations
    return columns


def test_d4rl_ends_episodes_at_terminals_and_timeouts(tmp_path):
    columns = write_d4rl(tmp_path / "d.hdf5", terminals=[0, 1, 0, 0, 0, 0], timeouts=[0, 0, 0, 0, 1, 0])
    demonstrations = Demonstrations.load(tmp_path / "d.hdf5")
    # Episode 1 terminated: whole. Episode 2 timed out without its last observation: one step less. Row 5 is a scrap.
    assert demonstrations.rewards.tolist() == [0, 1, 2, 3]
    assert demonstrations.terminated.tolist() == [False, True, False, False]
    assert demonstrations.truncated.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(demonstrations.next_observations[3], columns["observations"][4])


def test_d4rl_with_next_observations_keeps_every_row(tmp_path):
    after = observations(6)
    write_d4rl(tmp_path / "d.hdf5", terminals=[0] * 6, timeouts=[0, 0, 1, 0, 0, 0], next_observations=after)
    demonstrations = Demonstrations.load(tmp_path / "d.hdf5", source="policy-generated")
    assert demonstrations.episode_ends.tolist() == [3, 6]
    np.testing.assert_array_equal(demonstrations.next_observations, after)
    assert demonstrations.source == "policy-generated"


def test_d4rl_without_any_end_is_refused(tmp_path):
    write_d4rl(tmp_path / "d.hdf5", terminals=[0] * 6)
    with pytest.raises(ValueError, match="marks no end of an episode"):
        Demonstrations.load(tmp_path / "d.hdf5")


# --- Minari


def write_minari(path, episodes, as_dict=False):
    written = {}
    with h5py.File(path, "w") as file:
        for index, (length, terminated) in episodes.items():
            group = file.create_group(f"episode_{index}")
            obs = observations(length + 1)
            if as_dict:
                group["observations/a"], group["observations/b"] = obs, obs[:, :1]
            else:
                group["observations"] = obs
            group["actions"] = actions(length)
            group["rewards"] = np.full(length, float(index))
            group["terminations"] = np.arange(length) == (length - 1 if terminated else -1)
            group["truncations"] = np.arange(length) == (-1 if terminated else length - 1)
            written[index] = obs
    return written


def test_minari_reads_episodes_in_numeric_order(tmp_path):
    written = write_minari(tmp_path / "main_data.hdf5", {0: (2, True), 10: (1, False), 2: (3, False)})
    demonstrations = Demonstrations.load(tmp_path / "main_data.hdf5")
    assert demonstrations.rewards.tolist() == [0, 0, 2, 2, 2, 10]
    assert np.flatnonzero(demonstrations.terminated).tolist() == [1]
    np.testing.assert_array_equal(demonstrations.next_observations[2:5], written[2][1:])
    np.testing.assert_array_equal(demonstrations.observations[2:5], written[2][:-1])


def test_minari_dict_observations(tmp_path):
    written = write_minari(tmp_path / "main_data.hdf5", {0: (2, True), 1: (1, False)}, as_dict=True)
    demonstrations = Demonstrations.load(tmp_path / "main_data.hdf5")
    assert set(demonstrations.observations) == {"a", "b"}
    np.testing.assert_array_equal(demonstrations.next_observations["b"][2:], written[1][1:, :1])


# --- robomimic


def write_robomimic(path, *, next_obs=True, n_demos=11):
    written = {}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for index in range(n_demos):
            group = data.create_group(f"demo_{index}")
            length = 5
            group.attrs["num_samples"] = length
            group["actions"] = actions(length)
            # Success in step 2, kept up for two more steps, as recordings do; demo 1 never succeeds.
            solved = np.array([0, 0, 1, 1, 1]) * (index != 1)
            group["rewards"] = solved.astype(float)
            group["dones"] = np.maximum(solved, [0, 0, 0, 0, 1])
            both = {"object": observations(length + 1, 4), "robot0_eef_pos": observations(length + 1, 3)}
            for key, value in both.items():
                group[f"obs/{key}"] = value[:-1]
                if next_obs:
                    group[f"next_obs/{key}"] = value[1:]
            written[index] = both
        file["mask/valid"] = np.array([b"demo_10", b"demo_1"])
    return written


KEYS = ("robot0_eef_pos", "object")


def test_robomimic_concatenates_keys_in_order_and_ends_at_success(tmp_path):
    written = write_robomimic(tmp_path / "d.hdf5")
    demonstrations = Demonstrations.load(tmp_path / "d.hdf5", obs_keys=KEYS, mask="valid")
    assert demonstrations.episode_lengths.tolist() == [5, 3]  # demo_1 (no success), then demo_10
    assert np.flatnonzero(demonstrations.terminated).tolist() == [7]
    assert np.flatnonzero(demonstrations.truncated).tolist() == [4]
    assert demonstrations.source == "human"
    expected = np.concatenate([written[10][key] for key in KEYS], axis=1)
    np.testing.assert_array_equal(demonstrations.observations[5:], expected[:3])
    np.testing.assert_array_equal(demonstrations.next_observations[5:], expected[1:4])


def test_robomimic_as_dict_without_next_obs(tmp_path):
    written = write_robomimic(tmp_path / "d.hdf5", next_obs=False)
    demonstrations = Demonstrations.load(tmp_path / "d.hdf5", obs_keys=KEYS, mask="valid", as_dict=True)
    assert demonstrations.episode_lengths.tolist() == [4, 3]
    np.testing.assert_array_equal(demonstrations.observations["object"][:4], written[1]["object"][:4])
    np.testing.assert_array_equal(demonstrations.next_observations["object"][:4], written[1]["object"][1:5])


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        (None, None, "human"),
        ("scripted", None, "scripted"),
        (np.bytes_("policy-generated"), None, "policy-generated"),
        ("scripted", "unknown", "unknown"),
        ("somebody", "human", "human"),
    ],
)
def test_robomimic_believes_the_label_of_the_file_unless_told_another(tmp_path, recorded, given, expected):
    write_robomimic(tmp_path / "d.hdf5", n_demos=2)
    options = {} if given is None else {"source": given}
    if recorded is not None:
        with h5py.File(tmp_path / "d.hdf5", "a") as file:
            file["data"].attrs["source"] = recorded
    assert Demonstrations.load(tmp_path / "d.hdf5", obs_keys=KEYS, **options).source == expected


def test_robomimic_label_that_nobody_knows(tmp_path):
    write_robomimic(tmp_path / "d.hdf5")
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        file["data"].attrs["source"] = "somebody"
    with pytest.raises(ValueError, match=r"d.hdf5: .*`source` is 'somebody', expected one of human.*Pass `source`"):
        Demonstrations.load(tmp_path / "d.hdf5", obs_keys=KEYS)


def test_robomimic_default_keys(tmp_path):
    path = tmp_path / "d.hdf5"
    write_robomimic(path, n_demos=1)
    missing = "'robot0_eef_quat'.*object, robot0_eef_pos"
    with pytest.raises(ValueError, match=missing):
        Demonstrations.load(path)
    # a gym environment's observation, beside half of robosuite's, then beside all of it
    flat, rest = observations(6, 59), observations(6, 4)
    for added in ({"flat": flat}, {"robot0_eef_quat": rest, "robot0_gripper_qpos": rest}):
        with h5py.File(path, "a") as file:
            for key, value in added.items():
                file[f"data/demo_0/obs/{key}"], file[f"data/demo_0/next_obs/{key}"] = value[:-1], value[1:]
        demonstrations = Demonstrations.load(path)
        if "flat" in added:
            np.testing.assert_array_equal(demonstrations.observations, flat[:3])
            np.testing.assert_array_equal(demonstrations.next_observations, flat[1:4])
        else:
            assert demonstrations.observations.shape[1] == 4 + 3 + 4 + 4


def test_robomimic_reward_for_subtasks_is_no_success(tmp_path):
    path = tmp_path / "d.hdf5"
    write_robomimic(path, n_demos=2)
    with h5py.File(path, "a") as file:
        for index in range(2):
            group = file[f"data/demo_{index}"]
            group["rewards"][...] = [0, 1, 1, 2, 3 + index]
            group["dones"][...] = [0, 0, 0, 0, 1]
            group.attrs["success"] = bool(index)
    demonstrations = Demonstrations.load(path, obs_keys=KEYS)
    assert np.flatnonzero(demonstrations.truncated).tolist() == [4]
    assert np.flatnonzero(demonstrations.terminated).tolist() == [9]
    assert demonstrations.rewards.tolist() == [0, 1, 1, 2, 3, 0, 1, 1, 2, 4]


def lift_objects(path, env_args, rewards=(0, 0, 0, 0, 1)):
    rows = observations(5, 10)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1} | env_args)
        group = data.create_group("demo_0")
        group["obs/object"], group["next_obs/object"] = rows, rows
        group["actions"], group["rewards"], group["dones"] = actions(5), np.array(rewards), np.array([0, 0, 0, 0, 1])
        file["data/notes"] = "made by hand"
    return rows


def test_robomimic_files_of_older_robosuite_get_the_observations_of_ours(tmp_path):
    path = tmp_path / "d.hdf5"
    for version, sign in (("1.4.1", -1), ("1.5.2", 1)):
        rows = lift_objects(path, {"env_version": version})
        demonstrations = Demonstrations.load(path, obs_keys=["object"])
        for read in (demonstrations.observations, demonstrations.next_observations):
            np.testing.assert_array_equal(read[:, :7], rows[:, :7])
            np.testing.assert_array_equal(read[:, 7:], sign * rows[:, 7:])  # gripper - cube, and cube - gripper
    lift_objects(path, {})
    with pytest.warns(UserWarning, match="does not say which robosuite"):
        Demonstrations.load(path, obs_keys=["object"])


def test_robomimic_a_shaped_reward_is_no_success(tmp_path):
    for last, shaped, succeeds in ((0.1, True, False), (1.0, True, True), (0.1, False, True)):
        environment = {"env_version": "1.5.2", "env_kwargs": {"reward_shaping": shaped}}
        lift_objects(tmp_path / "d.hdf5", environment, [0.1, 0.1, 0.1, 0.1, last])
        assert Demonstrations.load(tmp_path / "d.hdf5", obs_keys=["object"]).terminated[-1] == succeeds


def test_hdf5_does_not_show_other_files(tmp_path):
    secret, path = tmp_path / "secret", tmp_path / "d.hdf5"
    secret.write_bytes(bytes(range(18)))
    write_d4rl(path, terminals=[0, 0, 0, 0, 0, 1])
    with h5py.File(path, "a") as file:
        del file["observations"]
        file.create_dataset("observations", shape=(6, 3), dtype="u1", external=[(str(secret), 0, 18)])
    with pytest.raises(ValueError, match="window on other files.*secret"):
        Demonstrations.load(path)
    with h5py.File(path, "a") as file:
        del file["observations"]
        file["observations"] = h5py.ExternalLink("other.hdf5", "observations")
    with pytest.raises(ValueError, match=r"link into 'other.hdf5'"):
        Demonstrations.load(path)


def test_robomimic_errors_list_what_there_is(tmp_path):
    write_robomimic(tmp_path / "d.hdf5")
    with pytest.raises(ValueError, match=r"no data set 'joints'.*object, robot0_eef_pos"):
        Demonstrations.load(tmp_path / "d.hdf5", obs_keys=["joints"])
    with pytest.raises(ValueError, match="`mask` is 'train', but the file's filters are valid"):
        Demonstrations.load(tmp_path / "d.hdf5", obs_keys=KEYS, mask="train")


def test_real_robomimic_file():
    path = SHARED / "lift_human" / "lift_keyboard29_low_dim.hdf5"
    if not path.is_file():
        pytest.skip("the human Lift demonstrations are not on this machine")
    demonstrations = Demonstrations.load(path, mask="valid")
    assert demonstrations.n_episodes == 3
    assert demonstrations.observations.shape[1] == 10 + 3 + 4 + 2
    assert demonstrations.terminated.sum() == 3
    assert (demonstrations.rewards[demonstrations.terminated] == 1).all()


# --- files that are no demonstrations


def test_damaged_empty_and_unknown_files(tmp_path):
    whole = tmp_path / "whole.hdf5"
    write_d4rl(whole, terminals=[0] * 2999 + [1], n=3000)
    content = whole.read_bytes()
    for cut in (len(content) // 2, 600):
        (tmp_path / "cut.hdf5").write_bytes(content[:cut])
        with pytest.raises(ValueError, match="cut off"):
            Demonstrations.load(tmp_path / "cut.hdf5")
    (tmp_path / "empty.npz").touch()
    with pytest.raises(ValueError, match="is empty"):
        Demonstrations.load(tmp_path / "empty.npz")
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"no file of demonstrations.*D4RL.*Minari.*robomimic"):
        Demonstrations.load(tmp_path / "note.txt")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["weather"] = 1
    with pytest.raises(ValueError, match="at its top is weather"):
        Demonstrations.load(tmp_path / "other.hdf5")
    with pytest.raises(FileNotFoundError, match="adroit-door-human"):
        Demonstrations.load("adroit-dor")


def test_options_of_another_reader_are_refused(tmp_path):
    write_plain_npz(tmp_path / "d.npz")
    with pytest.raises(ValueError, match="`load_npz`, which takes the options clip_actions, source, not obs_keys"):
        Demonstrations.load(tmp_path / "d.npz", obs_keys=["a"])


# --- shipped


def test_shipped_door_demonstrations():
    demonstrations = Demonstrations.load("adroit-door-human")
    assert demonstrations.source == "human"
    assert demonstrations.n_episodes == 25
    assert demonstrations.observations.shape[1] == 39
    assert demonstrations.action_dim == 28
    assert np.abs(demonstrations.actions).max() == 1.0
    assert set(demonstrations.rewards) == {-5.0, 5.0}
    # The door's hinge (rad) is past the threshold exactly where an episode terminated.
    np.testing.assert_array_equal(demonstrations.next_observations[:, 28] >= 1.35, demonstrations.terminated)
    np.testing.assert_array_equal(demonstrations.rewards == 5, demonstrations.terminated)
    assert 0 < demonstrations.terminated.sum() < 25
