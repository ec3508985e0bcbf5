"""What can be wrong with a step, of the BC policy or of the environment: told before it is stored or learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

from sb3_q2rl.bc.policy import BCStep


def bc_step_is_sound(step: BCStep) -> None:
    """:raises ValueError: NaN, or actions out of [-1, 1]"""
    largest = step.actions.abs().max().item()
    if not largest <= 1 + 1e-5:  # also catches NaN
        raise ValueError(
            f"`bc_policy` gave an action of {'NaN' if np.isnan(largest) else f'magnitude {largest:.3g}'}; expected "
            "finite numbers in [-1, 1]. Check the checkpoint's weights and the scale of its actions and observations."
        )
    for name, values in (("log-probability", step.log_prob), ("entropy", step.entropy)):
        if values is not None and not bool(th.isfinite(values).all()):
            raise ValueError(
                f"`bc_policy` gave a {name} that is not finite. Are its standard deviations floored, "
                "its weights finite?"
            )


def rewards_are_finite(rewards: np.ndarray, infos: list[dict[str, Any]]) -> None:
    """:raises ValueError: NaN or infinite reward"""
    if not np.isfinite(rewards).all():
        i = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(
            f"Environment {i} gave the reward {rewards[i]}; expected a finite number. One such reward would spoil "
            f"every value. Mend the environment's reward (its info had the keys {sorted(infos[i])})."
        )


def transition_is_finite(next_obs: Any, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
    """:raises ValueError: NaN or infinity in what the environment showed, also at an episode's end"""
    for i, done in enumerate(dones):
        last = infos[i].get("terminal_observation") if done else None
        one = {k: v[i] for k, v in next_obs.items()} if isinstance(next_obs, dict) else next_obs[i]
        for shown in (one,) if last is None else (one, last):
            for key, value in (shown if isinstance(shown, dict) else {"": shown}).items():
                if not np.isfinite(value).all():
                    raise ValueError(
                        f"Environment {i} gave an observation{f' {key!r}' if key else ''} with "
                        f"{np.size(value) - int(np.isfinite(value).sum())} of {np.size(value)} numbers NaN or infinite"
                        f"{' at the end of an episode' if shown is last else ''}. One such observation would spoil "
                        "every network, so it was not stored. Mend the environment, or wrap it in one that does."
                    )


def executed_action(action: np.ndarray, expected: tuple[int, ...], env_idx: int) -> np.ndarray:
    """:raises ValueError: another shape, or NaN"""
    action = np.asarray(action, dtype=np.float32)
    if action.shape != expected or not np.isfinite(action).all():
        raise ValueError(
            f"Environment {env_idx} tells in its info of an executed action {action.tolist()}; expected {expected[0]} "
            "finite numbers in the action space's own scale."
        )
    return action
