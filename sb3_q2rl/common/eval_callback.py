"""Success of the model, of its actor alone and of the BC policy alone, side by side while learning."""

from __future__ import annotations

import copy
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.evaluation import Evaluation, check_environment, evaluate
from sb3_q2rl.common.files import read_table, write_table
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC


class GateEvalCallback(BaseCallback):
    """
    Evaluate when the gate opens, and every ``eval_freq`` steps from then on. Logs ``eval/success_rate`` (the model as
    it acts), ``eval/rl_success_rate`` and, of a model that has one, ``eval/bc_success_rate``. The BC policy does not
    change: it is played once.

    :param eval_env: An environment of its own; a vector of them is faster
    :param n_eval_episodes: Episodes for each of the three
    :param eval_freq: Environment steps between two evaluations
    :param csv_path: Also write every row there. A run that goes on after a stop keeps the rows before it
    :param seed: Every evaluation starts from the same episodes
    :param deterministic: The RL action is the actor's mode; else a sample, as while learning
    :param verbose: 1: a line for each evaluation
    :raises ValueError: no episode, or no step between two evaluations; when the training starts: an environment of
        other observations than the model's, or not normalised alike
    """

    def __init__(
        self,
        eval_env: gym.Env | VecEnv,
        n_eval_episodes: int = 20,
        eval_freq: int = 5_000,
        csv_path: str | Path | None = None,
        seed: int = 12345,
        deterministic: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if n_eval_episodes < 1 or eval_freq < 1:
            raise ValueError(f"`n_eval_episodes`={n_eval_episodes} and `eval_freq`={eval_freq} must be at least 1.")
        self.eval_env = eval_env if isinstance(eval_env, VecEnv) else DummyVecEnv([lambda: eval_env])
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.csv_path = None if csv_path is None else Path(csv_path)
        self.seed = seed
        self.deterministic = deterministic
        self.history: list[dict[str, float]] = []
        self._next_evaluation: int | None = None
        self._bc: Evaluation | None = None

    def _on_training_start(self) -> None:
        model = self.model
        if not isinstance(model, OfflineToOnlineSAC):
            raise ValueError(
                f"GateEvalCallback is for the algorithms of sb3_q2rl, not for {type(model).__name__}: use SB3's "
                "EvalCallback."
            )
        check_environment(model, self.eval_env)
        if self._next_evaluation is not None and self._next_evaluation > model.num_timesteps + self.eval_freq:
            self._next_evaluation = None  # this learn() counts its steps anew
        if not self.history and self.csv_path is not None and self.csv_path.exists():
            rows = [{name: float(value) for name, value in row.items()} for row in read_table(self.csv_path)]
            self.history = [row for row in rows if row["timesteps"] <= self.model.num_timesteps]
            if self.history:
                self._next_evaluation = round(self.history[-1]["timesteps"]) + self.eval_freq

    def _on_rollout_start(self) -> None:
        model = self.model
        assert isinstance(model, OfflineToOnlineSAC)
        if not model.has_started:
            return
        if self._next_evaluation is None or model.num_timesteps >= self._next_evaluation:
            self._next_evaluation = model.num_timesteps + self.eval_freq
            self.evaluate_now()

    def _on_step(self) -> bool:
        return True

    def evaluate_now(self) -> dict[str, float]:
        """
        :return: The row: timesteps, and for each of ``model``, ``rl``, ``bc`` the success rate with its 95 % interval
        """
        assert isinstance(self.model, OfflineToOnlineSAC)
        learning, playing = self.model.get_vec_normalize_env(), unwrap_vec_normalize(self.eval_env)
        if learning is not None and playing is not None:
            playing.training = False
            playing.obs_rms = copy.deepcopy(learning.obs_rms)
        results = {"model": self._play("model"), "rl": self._play("rl")}
        if self.model._bc is not None:
            results["bc"] = self._bc = self._bc or self._play("bc")
        row: dict[str, float] = {"timesteps": self.model.num_timesteps, "episodes": self.n_eval_episodes}
        for who, result in results.items():
            low, high = result.interval()
            row |= {who: result.success_rate, f"{who}_low": low, f"{who}_high": high}
        self.history.append(row)
        self.logger.record("eval/success_rate", row["model"])
        for who in results.keys() - {"model"}:
            self.logger.record(f"eval/{who}_success_rate", row[who])
        self.logger.record("eval/mean_reward", results["model"].mean_reward)
        self._write()
        if self.verbose > 0:
            print(
                f"step {self.model.num_timesteps:>7,}: success of the model {row['model']:.0%} "
                f"[{row['model_low']:.0%}, {row['model_high']:.0%}], RL alone {row['rl']:.0%}"
                + (f", BC alone {row['bc']:.0%}" if "bc" in row else "")
            )
        return row

    def _play(self, who: Who) -> Evaluation:
        assert isinstance(self.model, OfflineToOnlineSAC)
        self.eval_env.seed(self.seed)
        return evaluate(self.model, self.eval_env, self.n_eval_episodes, who, self.deterministic)

    def _write(self) -> None:
        if self.csv_path is None:
            return
        write_table(self.csv_path, list(self.history[0]), [list(row.values()) for row in self.history])
