"""Episodes as a GIF or a sheet: BC alone and the model from the same start, framed in the colour of who acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from PIL import Image, ImageDraw

from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

FRAME_COLORS = {"bc": (85, 85, 85), "rl": (224, 123, 57), "person": (58, 102, 176)}
SUCCESS_COLOR = (46, 139, 87)
BORDER = 8  # pixels


class Episode(NamedTuple):
    """
    :param frames: rendered, framed images
    :param is_success: how it ended
    :param rl_acts: (n_steps,) bool, the steps in which the RL action was executed
    """

    frames: list[Image.Image]
    is_success: bool
    rl_acts: np.ndarray


def record_episode(
    model: OfflineToOnlineSAC,
    env: gym.Env,
    seed: int,
    who: Who = "model",
    every: int = 4,
    size: int = 240,
    deterministic: bool = True,
) -> Episode:
    """
    :param model: The model
    :param env: Made with ``render_mode="rgb_array"``
    :param seed: Of the start, and of the actions that are samples: the same episode every time
    :param who: Who acts, see :meth:`OfflineToOnlineSAC.predict`
    :param every: Keep one frame of so many; 0: keep none
    :param size: Pixels of a frame's longer edge
    :param deterministic: The RL action is the actor's mode; else a sample, as while learning
    :raises ValueError: The environment does not tell success
    """
    with th.random.fork_rng():
        th.manual_seed(seed)
        obs, _ = env.reset(seed=seed)
        frames, acts, state, t, done, success = [], [], None, 0, False, False
        while not done:
            decision = model.decide(_as_seen(model, obs), state, np.array([t == 0]), deterministic)
            action = decision.by(who).cpu().numpy().reshape(env.action_space.shape or ())
            state = decision.bc.state if decision.bc is not None else None
            rl_acts = who == "rl" or (who == "model" and decision.rl_acts is not None and bool(decision.rl_acts[0]))
            acts.append(rl_acts)
            obs, _, terminated, truncated, info = env.step(model.policy.unscale_action(action))
            if "is_success" not in info:
                raise ValueError(
                    "The environment's info has no `is_success`, so no picture could tell how an episode ended. It has "
                    f"{sorted(info)}. Add it in a wrapper."
                )
            done, success = terminated or truncated, bool(info["is_success"])
            if every > 0 and (t % every == 0 or done):
                name = "BC" if who == "bc" else "RL alone" if who == "rl" else f"gate: {'RL' if rl_acts else 'BC'} acts"
                text = f"{name}  step {t + 1}{'  success' if success else '  time is up' if done else ''}"
                color = SUCCESS_COLOR if success else FRAME_COLORS["rl" if rl_acts else "bc"]
                frames.append(framed(np.asarray(env.render()), text, color, size))
            t += 1
    return Episode(frames, success, np.array(acts))


def _as_seen(model: OfflineToOnlineSAC, obs: Any) -> Any:
    """A plain environment does not normalise. The statistics are the model's own, and are saved with it."""
    normalizer = model.get_vec_normalize_env()
    return obs if normalizer is None else normalizer.normalize_obs(model._as_learnt_from(obs))


def side_by_side(left: Episode, right: Episode, hold: int = 8) -> list[Image.Image]:
    """
    :param left: Shown left
    :param right: Shown right
    :param hold: Repeat the last frame so often
    """
    images = []
    for t in range(max(len(left.frames), len(right.frames)) + hold):
        pair = [episode.frames[min(t, len(episode.frames) - 1)] for episode in (left, right)]
        image = Image.new("RGB", (pair[0].width + pair[1].width, pair[0].height))
        image.paste(pair[0], (0, 0))
        image.paste(pair[1], (pair[0].width, 0))
        images.append(image)
    return images


def contact_sheet(rows: list[Episode], columns: int = 6) -> Image.Image:
    """
    :param rows: One episode a row
    :param columns: Frames of each, evenly spaced over it; the last one is its end
    """
    frames = [[row.frames[i] for i in np.linspace(0, len(row.frames) - 1, columns).round().astype(int)] for row in rows]
    width, height = frames[0][0].size
    sheet = Image.new("RGB", (columns * width, len(rows) * height), (255, 255, 255))
    for y, row in enumerate(frames):
        for x, frame in enumerate(row):
            sheet.paste(frame, (x * width, y * height))
    return sheet


def save_gif(images: list[Image.Image], path: str | Path, frames_per_second: int = 12) -> Path:
    """
    :param images: All of one size
    :param path: The GIF
    :param frames_per_second: Speed
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    palette = [image.quantize(colors=64, method=Image.Quantize.FASTOCTREE) for image in images]
    palette[0].save(path, save_all=True, append_images=palette[1:], duration=1000 // frames_per_second, loop=0)
    return path


def framed(frame: np.ndarray, text: str, color: tuple[int, int, int], size: int) -> Image.Image:
    """
    :param frame: (height, width, 3) uint8
    :param text: Written above it
    :param color: Of the frame
    :param size: Pixels of the picture's longer edge
    """
    scale = size / max(frame.shape[:2])
    picture = Image.fromarray(frame).resize((round(frame.shape[1] * scale), round(frame.shape[0] * scale)))
    image = Image.new("RGB", (picture.width + 2 * BORDER, picture.height + 2 * BORDER + 16), color)
    image.paste(picture, (BORDER, BORDER + 16))
    ImageDraw.Draw(image).text((BORDER, 6), text, fill=(255, 255, 255))
    return image
