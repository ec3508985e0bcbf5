"""Films of the training itself: every n-th episode, framed in the colour of who acts."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from stable_baselines3.common.callbacks import BaseCallback

from sb3_q2rl.benchmark.video import FRAME_COLORS, SUCCESS_COLOR, framed, save_gif
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC


class TimelapseCallback(BaseCallback):
    """
    Film every ``every``-th episode of the first environment, as one GIF each: grey where BC acts, orange where RL acts,
    blue where a person does.

    :param folder: ``episode_00050.gif`` and so on go there
    :param every: Film one episode of so many, the first one included
    :param frame_every: Keep one frame of so many steps, and the last
    :param size: Pixels of a frame's longer edge
    :param verbose: Verbosity
    """

    def __init__(
        self, folder: str | Path, every: int = 50, frame_every: int = 2, size: int = 240, verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        if every < 1 or frame_every < 1:
            raise ValueError(f"`every` and `frame_every` must be 1 or more, got {every} and {frame_every}.")
        self.folder = Path(folder)
        self.every = every
        self.frame_every = frame_every
        self.size = size
        self._episode = self._step = 0
        self._frames: list[Image.Image] = []
        self._last: np.ndarray | None = None

    def _on_training_start(self) -> None:
        if self.training_env.render_mode != "rgb_array":
            raise ValueError(
                f"The environment's `render_mode` is {self.training_env.render_mode!r}; filming needs 'rgb_array': "
                'gym.make(..., render_mode="rgb_array").'
            )
        self._step, self._frames = 0, []

    def _on_step(self) -> bool:
        is_over = bool(self.locals["dones"][0])
        if self._episode % self.every == 0:
            self._film(is_over)
        self._step += 1
        if is_over:
            if self._frames:
                path = self.folder / f"episode_{self._episode:05d}.gif"
                save_gif(self._frames, path)
                if self.verbose > 0:
                    print(f"Film of episode {self._episode}: {path}")
            self._episode, self._step, self._frames, self._last = self._episode + 1, 0, [], None
        return True

    def _film(self, is_over: bool) -> None:
        model, info = self.model, self.locals["infos"][0]
        assert isinstance(model, OfflineToOnlineSAC)
        assert model.decision is not None
        if not is_over:  # else it would be the next episode's first picture
            if self._step % self.frame_every > 0:
                return
            self._last = self.training_env.env_method("render", indices=[0])[0]
        if self._last is None:
            if not is_over:
                warnings.warn("The environment has no picture to film (no camera?).", stacklevel=2)
            return
        rl_acts = model.decision.rl_acts
        who = "rl" if rl_acts is None or bool(rl_acts[0]) else "bc"
        who = "person" if "intervene_action" in info else who
        success = is_over and bool(info.get("is_success", False))
        end = "  success" if success else "  no success" if is_over else ""
        name = {"rl": "RL", "bc": "BC", "person": "a person"}[who]
        text = f"episode {self._episode}  step {self._step + 1}: {name} acts{end}"
        self._frames.append(framed(self._last, text, SUCCESS_COLOR if success else FRAME_COLORS[who], self.size))
