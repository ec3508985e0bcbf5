"""A policy's weights on their way from the learner to the actor."""

from __future__ import annotations

from typing import Any

import torch as th
from torch import nn

EXTRA = "_extra_state"
# What acting does without
LEFT_OUT = "critic_target."


def weights_to_act(policy: nn.Module) -> dict[str, Any]:
    """
    :param policy: the learner's
    :return: its state, without the target critics
    """
    return {name: value for name, value in policy.state_dict().items() if not name.startswith(LEFT_OUT)}


def adopt(policy: nn.Module, state: dict[str, Any]) -> None:
    """
    Put new tensors in the place of the old ones. Nothing is copied: the actor loses less than a millisecond.

    :param policy: the actor's
    :param state: of :func:`weights_to_act`, on the policy's device
    :raises KeyError: of another policy
    """
    for name, tensor in policy.state_dict(keep_vars=True).items():
        if isinstance(tensor, th.Tensor) and not name.startswith(LEFT_OUT):
            tensor.data = state[name]
    for name, module in policy.named_modules():
        key = f"{name}.{EXTRA}"
        if key in state:
            module.set_extra_state(state[key])
