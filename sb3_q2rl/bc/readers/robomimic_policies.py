"""robomimic's BC networks as BC policies: deterministic, Gaussian or GMM; with an RNN, a transformer or no memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from sb3_q2rl.bc.density import Density
from sb3_q2rl.bc.distributions import step_from
from sb3_q2rl.bc.policy import BCObs, BCStep
from sb3_q2rl.bc.readers.robomimic_observations import RobomimicObservations

# robomimic's own floor (`min_std`) may be set to 0; its default is this one
_SIGMA_MIN = 1e-4


class RobomimicBCPolicy(nn.Module):
    """
    A robomimic policy without memory. Every robomimic BC network is an encoder of one observation, something that
    remembers or not, and a decoder; subclasses say how to remember.

    Scales are always the learned ones: robomimic's ``low_noise_eval`` replaces them by 1e-4 at evaluation, and a sample
    scored so says nothing about how likely it is.

    :param network: robomimic's policy network
    :param observations: what the network reads
    :param density: how to score the actions of a network that gives nothing else: "none" or "fixed"
    :raises ValueError: a density that has to be sampled
    """

    is_recurrent = False

    def __init__(self, network: nn.Module, observations: RobomimicObservations, density: Density):
        super().__init__()
        self.network: Any = network
        self.observations = observations
        self.density = density
        self.has_density = "mean" in network.output_shapes  # type: ignore[operator]
        if density.is_sampled and not self.has_density:
            raise ValueError(
                f"`density={density.kind!r}` draws several actions in each state, but this robomimic policy is "
                "deterministic: it gives the same one every time. Use `density='fixed'` or `density='none'`, or train "
                "it with `algo.gmm.enabled`."
            )

    @th.no_grad()
    def step(
        self, obs: BCObs, state: Any, episode_start: np.ndarray | th.Tensor, deterministic: bool = False
    ) -> BCStep:
        """
        :param obs: (n, dim), or a dict; images in 0..255
        :param state: what the previous call returned, ``None`` at the very beginning
        :param episode_start: (n,) bool; row i forgets what it remembers where it is True
        :param deterministic: act at the mode; of a mixture: the mean of the heaviest component
        """
        features = self.network.nets["encoder"](obs=self.observations(obs))
        start = th.as_tensor(episode_start, dtype=th.bool, device=features.device)
        outputs, state = self._decode(features, state, start)
        if not self.has_density:
            actions = th.tanh(outputs["action"])
            if self.density.kind == "none":
                return BCStep(actions, None, None, state)
            return step_from(_gaussian(actions, th.full_like(actions, self.density.scale)), deterministic, state)
        return step_from(action_distribution(self.network, outputs), deterministic, state)

    def _decode(self, features: th.Tensor, state: Any, start: th.Tensor) -> tuple[dict[str, th.Tensor], Any]:
        """
        :param features: (n, feature_dim) the encoded observations
        :param state: what this method returned before
        :param start: (n,) bool
        :return: outputs of robomimic's decoder, rows first, and the next state
        """
        return self.network.nets["decoder"](self.network.nets["mlp"](features)), None

    def __repr__(self) -> str:
        """Short: robomimic's networks look into its global state to describe themselves."""
        return f"{type(self).__name__}({type(self.network).__name__}, reads {self.observations.shapes})"


class RNNState(NamedTuple):
    """
    :param hidden: (n, layers, hidden_dim)
    :param cell: (n, layers, hidden_dim) of an LSTM, ``None`` of a GRU
    :param steps: (n,) since the memory was last cleared
    """

    hidden: th.Tensor
    cell: th.Tensor | None
    steps: th.Tensor


class RobomimicRNNPolicy(RobomimicBCPolicy):
    """
    :param horizon: robomimic clears the memory after so many steps, the length of the training sequences; here every
        environment counts its own
    """

    is_recurrent = True

    def __init__(self, network: nn.Module, observations: RobomimicObservations, density: Density, horizon: int):
        super().__init__(network, observations, density)
        self.horizon = horizon

    def _decode(self, features: th.Tensor, state: Any, start: th.Tensor) -> tuple[dict[str, th.Tensor], Any]:
        rnn = self.network.nets["rnn"]
        if state is None:
            memory = rnn.get_rnn_init_state(len(features), features.device)
            steps = th.zeros(len(features), dtype=th.long, device=features.device)
        else:
            clear = start | (state.steps >= self.horizon)
            steps = state.steps.masked_fill(clear, 0)
            hidden, cell = (
                None if part is None else part.masked_fill(clear[:, None, None], 0.0).transpose(0, 1).contiguous()
                for part in (state.hidden, state.cell)
            )
            memory = hidden if cell is None else (hidden, cell)
        outputs, memory = rnn(features.unsqueeze(1), rnn_init_state=memory, return_state=True)
        hidden, cell = memory if isinstance(memory, tuple) else (memory, None)
        new_state = RNNState(hidden.transpose(0, 1), None if cell is None else cell.transpose(0, 1), steps + 1)
        return {name: value.squeeze(1) for name, value in outputs.items()}, new_state


class RobomimicTransformerPolicy(RobomimicBCPolicy):
    """
    The state is the window of the last encoded observations, (n, context_length, feature_dim), filled with the first
    one at the beginning of an episode. Encoding each observation once saves an image policy most of its time.

    :param context_length: length of the window
    """

    is_recurrent = True

    def __init__(self, network: nn.Module, observations: RobomimicObservations, density: Density, context_length: int):
        super().__init__(network, observations, density)
        self.context_length = context_length

    def _decode(self, features: th.Tensor, state: Any, start: th.Tensor) -> tuple[dict[str, th.Tensor], Any]:
        newest = features.unsqueeze(1)
        window = newest.expand(-1, self.context_length, -1)
        if state is not None:
            window = th.where(start[:, None, None], window, th.cat([state[:, 1:], newest], dim=1))
        embedded = self.network.input_embedding(window)
        last = self.network.nets["transformer"](embedded)[:, -1]
        return self.network.nets["decoder"](last), window


def action_distribution(network: Any, outputs: Mapping[str, th.Tensor]) -> Distribution:
    """
    :param network: robomimic's policy network, which knows how it turns outputs into scales
    :param outputs: "mean" and "scale", (n, action_dim), or of a mixture (n, modes, action_dim) with "logits" (n, modes)
    :return: the distribution that robomimic trains
    """
    means, scales = outputs["mean"], outputs["scale"]
    if "logits" in outputs:
        scales = network.activations[network.std_activation](scales) + network.min_std
        components = _gaussian(th.tanh(means), scales)
        weights = Categorical(logits=outputs["logits"], validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)
    means = th.tanh(means.clamp(*network.mean_limits.tolist()))
    scales = th.full_like(means, network.init_std) if network.fixed_std else scales
    scales = network.activations[network.std_activation](scales).clamp(*network.std_limits.tolist())
    return _gaussian(means, scales)


def _gaussian(means: th.Tensor, scales: th.Tensor) -> Independent:
    return Independent(Normal(means, scales.clamp_min(_SIGMA_MIN), validate_args=False), 1, validate_args=False)
