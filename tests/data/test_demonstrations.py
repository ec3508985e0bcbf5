"""Demonstrations: checks, episodes, splits and the reward of the task."""

import dataclasses

import numpy as np
import pytest

from sb3_q2rl.data import Demonstrations


def make_demonstrations(lengths=(3, 2, 4), obs_dim=2, action_dim=1) -> Demonstrations:
    """Row i of the data is row number i everywhere, so that misaligned rows are seen."""
    n = sum(lengths)
    ends = np.cumsum(lengths)
    rows = np.arange(n, dtype=np.float32)
    terminated = np.zeros(n, dtype=bool)
    terminated[ends[0] - 1] = True
    truncated = np.zeros(n, dtype=bool)
    truncated[ends[1:] - 1] = True
    return Demonstrations(
        observations=np.repeat(rows[:, None], obs_dim, axis=1),
        next_observations=np.repeat(rows[:, None] + 0.5, obs_dim, axis=1),
        actions=np.repeat(rows[:, None] / n, action_dim, axis=1),
        rewards=rows.copy(),
        terminated=terminated,
        truncated=truncated,
        episode_ends=ends,
        source="scripted",
    )


def test_episodes_are_the_rows_between_the_ends():
    episodes = list(make_demonstrations().episodes())
    assert [episode.rewards.tolist() for episode in episodes] == [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    assert [bool(episode.terminated[-1]) for episode in episodes] == [True, False, False]
    assert all(episode.n_episodes == 1 and episode.source == "scripted" for episode in episodes)


def test_select_keeps_the_rows_of_an_episode_together():
    chosen = make_demonstrations().select([2, 0])
    assert chosen.rewards.tolist() == [5, 6, 7, 8, 0, 1, 2]
    assert chosen.episode_ends.tolist() == [4, 7]
    np.testing.assert_array_equal(chosen.next_observations[:, 0], chosen.observations[:, 0] + 0.5)


def test_split_shares_no_episode_and_loses_none():
    demonstrations = make_demonstrations(lengths=(2, 3, 4, 5, 6))
    training, held_out = demonstrations.split(0.4, seed=3)
    assert (training.n_episodes, held_out.n_episodes) == (3, 2)
    assert sorted([*training.rewards, *held_out.rewards]) == demonstrations.rewards.tolist()
    again = demonstrations.split(0.4, seed=3)[1]
    np.testing.assert_array_equal(again.rewards, held_out.rewards)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_split_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="`held_out_fraction`"):
        make_demonstrations().split(fraction)


def test_split_leaves_something_to_train_on():
    with pytest.raises(ValueError, match=r"1 episode\(s\) cannot be split"):
        make_demonstrations(lengths=(3,)).split(0.5)


def test_success_rewards_end_the_episode_at_the_first_success():
    success = np.array([0, 1, 1, 0, 0, 0, 0, 0, 1])
    sparse = make_demonstrations().with_success_rewards(success, step_reward=-5.0, success_reward=5.0)
    assert sparse.episode_ends.tolist() == [2, 4, 8]
    assert sparse.rewards.tolist() == [-5, 5, -5, -5, -5, -5, -5, 5]
    assert np.flatnonzero(sparse.terminated).tolist() == [1, 7]
    assert np.flatnonzero(sparse.truncated).tolist() == [3]
    assert sparse.observations[:, 0].tolist() == [0, 1, 3, 4, 5, 6, 7, 8]


def changed(**values):
    return dataclasses.replace(make_demonstrations(), **values)


def with_entry(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def test_nan_names_the_array_and_the_row():
    base = make_demonstrations()
    with pytest.raises(ValueError, match=r"`observations` holds 1 entries .* row 4"):
        changed(observations=with_entry(base.observations, (4, 1), np.nan))
    with pytest.raises(ValueError, match=r"`rewards` holds 1 entries .* row 2"):
        changed(rewards=with_entry(base.rewards, 2, np.inf))


def test_action_out_of_range_says_how_many_and_how_far():
    base = make_demonstrations()
    with pytest.raises(ValueError, match=r"1 of 9 entries \(11.1 %\).* 1.25.*clip_actions=True"):
        changed(actions=with_entry(base.actions, (3, 0), -1.25))


def test_wrong_shapes_are_refused():
    base = make_demonstrations()
    with pytest.raises(ValueError, match="`rewards` has 8 rows, but there are 9 actions"):
        changed(rewards=base.rewards[:-1])
    with pytest.raises(ValueError, match=r"`actions` has shape \(9,\)"):
        changed(actions=base.actions[:, 0])
    with pytest.raises(ValueError, match="`next_observations` have shapes"):
        changed(next_observations=base.next_observations[:, :1])
    with pytest.raises(ValueError, match="`rewards` has no rows, but there are 9 actions"):
        changed(rewards=0.0)
    with pytest.raises(ValueError, match=r"`episode_ends` has shape \(1, 3\), expected \(n_episodes,\)"):
        changed(episode_ends=base.episode_ends[None])
    with pytest.raises(ValueError, match=r"`episode_ends` holds 2\.5; expected whole numbers"):
        changed(episode_ends=np.array([2.5, 9.0]))
    with pytest.raises(ValueError, match=r"`terminated` holds 2; expected true or false"):
        changed(terminated=np.full(len(base), 2))
    with pytest.raises(ValueError, match=r"`episode_ends` has shape \(\), expected \(n_episodes,\)"):
        changed(episode_ends=9)


def test_lists_and_other_kinds_of_numbers_become_arrays():
    base = make_demonstrations()
    names = [field.name for field in dataclasses.fields(base) if field.name != "source"]
    lists = Demonstrations(**{name: getattr(base, name).tolist() for name in names})
    floats = Demonstrations(**{name: getattr(base, name).astype(np.float64) for name in names})
    for made in (lists, floats):
        for name in names:
            np.testing.assert_array_equal(getattr(made, name), getattr(base, name))
        assert (made.actions.dtype, made.terminated.dtype, made.episode_ends.dtype) == (np.float32, bool, np.int64)
        assert [len(episode) for episode in made.episodes()] == [3, 2, 4]
    keyed = changed(
        observations={"x": base.observations.tolist()}, next_observations={"x": base.next_observations.tolist()}
    )
    np.testing.assert_array_equal(keyed.observations["x"], base.observations)
    assert changed(observations=base.observations).observations is base.observations, "nothing is copied"


def test_what_is_no_array_of_numbers_is_refused():
    base = make_demonstrations()
    with pytest.raises(ValueError, match="`actions` is no array: .*Expected rows of one shape"):
        changed(actions=[*base.actions[:-1].tolist(), [0.0, 0.0]])
    with pytest.raises(ValueError, match="`rewards` holds entries of <U4, expected an array of numbers"):
        changed(rewards=["none"] * 9)
    with pytest.raises(ValueError, match="`observations` holds entries of object, expected an array of numbers"):
        changed(observations=None)


def test_ends_and_flags_must_agree():
    base = make_demonstrations()
    with pytest.raises(ValueError, match=r"1 rows disagree with `episode_ends`, the first is row 8"):
        changed(truncated=with_entry(base.truncated, 8, False))
    with pytest.raises(ValueError, match="must increase and end at the number of steps, 9"):
        changed(episode_ends=np.array([3, 5, 12]))


def test_no_step_and_unknown_source_are_refused():
    with pytest.raises(ValueError, match="`source` is 'dog'"):
        changed(source="dog")
    empty = {name: np.zeros((0, 1)) for name in ("observations", "next_observations", "actions")}
    flags = {name: np.zeros(0, dtype=bool) for name in ("rewards", "terminated", "truncated")}
    with pytest.raises(ValueError, match="no step"):
        Demonstrations(**empty, **flags, episode_ends=np.zeros(0, dtype=int))
