"""
Write the checkpoints of this folder with the libraries that they come from, and beside each what that library says
about six observations. Every library wants an environment of its own:

    python make_files.py d3rlpy            # pip install d3rlpy==2.8.1
    python make_files.py corl CLONE        # pip install torch; CLONE: a clone of github.com/tinkoff-ai/CORL
    python make_files.py flax              # pip install flax==0.9.0 jax==0.4.33 distrax==0.1.2 (the official release's)
    python make_files.py imitation         # pip install imitation==1.0.1

Each .npz holds ``obs`` (6, obs_dim), ``mean`` (6, action_dim) and, for policies with a density, ``actions`` to score,
their joint ``log_prob`` (6,) and, before any squashing, ``std`` (6, action_dim).
"""

import importlib
import json
import sys
import zipfile
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

HERE = Path(__file__).parent
OBS_DIM, ACTION_DIM, N = 5, 3, 6
RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(N, OBS_DIM)).astype(np.float32) * 2
ACTIONS = RNG.uniform(-0.95, 0.95, size=(N, ACTION_DIM)).astype(np.float32)


def record(name, mean, std=None, log_prob=None, **more):
    outputs = {"obs": OBS, "mean": mean, **more}
    if std is not None:
        outputs |= {"actions": ACTIONS, "std": std, "log_prob": log_prob}
    np.savez(HERE / f"{name}.npz", **{key: np.asarray(value) for key, value in outputs.items()})


def stirred(module):
    """Random weights so large that activations, clamps and squashing matter."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5).add_(0.1 * torch.randn_like(parameter))
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module.eval()


def make_d3rlpy():
    import d3rlpy
    import torch
    from d3rlpy.models.torch.policies import build_gaussian_distribution, build_squashed_gaussian_distribution
    from d3rlpy.preprocessing import MinMaxActionScaler, MinMaxObservationScaler, StandardObservationScaler

    def encoder(**kwargs):
        return d3rlpy.models.VectorEncoderFactory([8, 8], **kwargs)

    algos = d3rlpy.algos
    standard = StandardObservationScaler(mean=np.arange(5.0) / 5, std=np.arange(1.0, 6.0))
    min_max = MinMaxObservationScaler(minimum=-np.arange(3.0, 8.0), maximum=np.arange(4.0, 9.0))
    inside = MinMaxActionScaler(minimum=np.array([-0.9, -0.5, -1.0]), maximum=np.array([0.8, 1.0, 0.2]))
    beyond = MinMaxActionScaler(minimum=np.array([-2.0, -2.0, -3.0]), maximum=np.array([2.0, 2.0, 1.0]))
    q = {"critic_encoder_factory": d3rlpy.models.VectorEncoderFactory([4])}
    configs = {
        "bc": algos.BCConfig(encoder_factory=encoder(), observation_scaler=standard, action_scaler=inside),
        "bc_stochastic": algos.BCConfig(encoder_factory=encoder(activation="tanh"), policy_type="stochastic"),
        "awac": algos.AWACConfig(
            actor_encoder_factory=encoder(use_layer_norm=True, activation="gelu"), action_scaler=inside, **q
        ),
        "iql": algos.IQLConfig(
            actor_encoder_factory=encoder(activation="swish", dropout_rate=0.1),
            value_encoder_factory=d3rlpy.models.VectorEncoderFactory([4]),
            observation_scaler=min_max,
            **q,
        ),
        "cql": algos.CQLConfig(actor_encoder_factory=encoder(), action_scaler=inside, **q),
        "sac": algos.SACConfig(
            actor_encoder_factory=encoder(use_batch_norm=True, exclude_last_activation=True), action_scaler=beyond, **q
        ),
        "td3_plus_bc": algos.TD3PlusBCConfig(actor_encoder_factory=encoder(last_activation="tanh"), **q),
    }
    for name, config in configs.items():
        torch.manual_seed(1)
        algo = config.create()
        algo.create_impl((OBS_DIM,), ACTION_DIM)
        policy = stirred(getattr(algo.impl.modules, "imitator" if name.startswith("bc") else "policy"))
        algo.save(str(HERE / f"d3rlpy_{name}.d3"))
        algo = d3rlpy.load_learnable(str(HERE / f"d3rlpy_{name}.d3"))
        policy = getattr(algo.impl.modules, "imitator" if name.startswith("bc") else "policy").eval()
        x = torch.as_tensor(OBS)
        if config.observation_scaler is not None:
            x = config.observation_scaler.transform(x)
        mean = algo.predict(OBS)  # in the scale of the data
        with torch.no_grad():
            output = policy(x)
            if output.logstd is None:
                record(f"d3rlpy_{name}", mean)
                continue
            squashed = name in ("cql", "sac")
            build = build_squashed_gaussian_distribution if squashed else build_gaussian_distribution
            # log_prob: of ACTIONS in the policy's own [-1, 1]
            log_prob = build(output).log_prob(torch.as_tensor(ACTIONS))[:, 0]
        record(f"d3rlpy_{name}", mean, output.logstd.exp().expand(N, -1), log_prob)


def make_corl(clone):
    import torch

    for name in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[name] = MagicMock()
    sys.path.insert(0, str(Path(clone) / "algorithms" / "offline"))
    linear, width = torch.nn.Linear, 256
    # CORL's hidden layers have 256 units: too many for a file in a repository
    torch.nn.Linear = lambda i, o: linear(16 if i == width else i, 16 if o == width else o)
    modules = {name: importlib.import_module(name) for name in ("any_percent_bc", "iql", "cql", "edac", "awac")}
    sizes = (OBS_DIM, ACTION_DIM)
    actors = {
        "bc": modules["any_percent_bc"].Actor(*sizes, 1.0),
        "iql_deterministic": modules["iql"].DeterministicPolicy(*sizes, 1.0, dropout=0.1),
        "iql": modules["iql"].GaussianPolicy(*sizes, 1.0),
        "awac": modules["awac"].Actor(*sizes, 16),
        "cql": modules["cql"].TanhGaussianPolicy(*sizes, 1.0, log_std_multiplier=0.7),
        "edac": modules["edac"].Actor(*sizes, 16),
    }
    obs, actions = torch.as_tensor(OBS), torch.as_tensor(ACTIONS)
    for name, actor in actors.items():
        torch.manual_seed(2)
        stirred(actor)
        # "actor" is where CORL's trainers put it; bare state dicts are as common
        state = actor.state_dict()
        torch.save(state if name in ("bc", "edac") else {"actor": state, "total_it": 7}, HERE / f"corl_{name}.pt")
        with torch.no_grad():
            if name in ("bc", "iql_deterministic"):
                record(f"corl_{name}", actor(obs))
            elif name in ("iql", "awac"):
                normal = actor(obs) if name == "iql" else actor._get_policy(obs)
                record(f"corl_{name}", normal.mean, normal.stddev, normal.log_prob(actions).sum(-1))
            elif name == "cql":
                mean, log_std = actor.base_network(obs).chunk(2, dim=-1)
                log_std = actor.log_std_multiplier() * log_std + actor.log_std_offset()
                log_prob = actor.tanh_gaussian.log_prob(mean, log_std, actions)
                record("corl_cql", actor(obs, deterministic=True)[0], log_std.clamp(-20, 2).exp(), log_prob)
            else:
                # it only scores its own samples: ask for one of a known seed
                torch.manual_seed(3)
                sample, log_prob = actor(obs, need_log_prob=True)
                mean = actor(obs, deterministic=True)[0]
                std = actor.log_sigma(actor.trunk(obs)).clip(-5, 2).exp()
                record("corl_edac", mean, std, log_prob, actions_of_its_own=sample)


def make_flax():
    """The layers of the official release's BC agent, in flax, scored by distrax; smaller than its 256-256."""
    from typing import Any

    import distrax
    import flax
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training import checkpoints

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(16)(x))
            return nn.relu(nn.Dense(16)(x))

    class Policy(nn.Module):
        network: nn.Module

        @nn.compact
        def __call__(self, x):
            features = self.network(x)
            mean, log_std = nn.Dense(ACTION_DIM)(features), nn.Dense(ACTION_DIM)(features)
            return distrax.MultivariateNormalDiag(mean, jnp.clip(jnp.exp(log_std), 1e-5, 10.0))

    class Modules(nn.Module):
        modules: dict

        @nn.compact
        def __call__(self, x):
            return self.modules["actor"](x)

    class State(flax.struct.PyTreeNode):
        step: int
        params: Any
        target_params: Any
        opt_states: Any
        rng: Any

    class Agent(flax.struct.PyTreeNode):
        state: State

    model = Modules({"actor": Policy(Network())})
    params = model.init(jax.random.PRNGKey(0), OBS)["params"]
    keys = iter(jax.random.split(jax.random.PRNGKey(1), 100))
    params = jax.tree_util.tree_map(lambda p: 2.5 * p + 0.3 * jax.random.normal(next(keys), p.shape), params)
    optimizer = optax.adam(1e-3).init(params)
    agent = Agent(State(1000, params, params, optimizer, jax.random.PRNGKey(2)))
    flax.config.update("flax_use_orbax_checkpointing", False)
    checkpoints.save_checkpoint(str(HERE), agent, step=0, prefix="flax_bc_", overwrite=True)
    (HERE / "flax_bc_0").rename(HERE / "flax_bc.msgpack")
    policy = model.apply({"params": params}, OBS)
    record("flax_bc", policy.mean(), policy.stddev(), policy.log_prob(ACTIONS))


def without_pickles(path):
    """The reader never opens the pickles in a model's data, and they hold paths of the machine that wrote them."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if name != "system_info.txt"}
    data = json.loads(parts["data"])
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = ""
    parts["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def make_imitation():
    import gymnasium as gym
    import torch
    from imitation.algorithms import bc
    from imitation.data.types import Transitions
    from imitation.util.util import save_policy
    from stable_baselines3 import PPO

    low, high = np.array([-2.0, -1.0, 0.0], np.float32), np.array([2.0, 3.0, 0.5], np.float32)

    class Still(gym.Env):
        observation_space = gym.spaces.Box(-10, 10, (OBS_DIM,), np.float32)
        action_space = gym.spaces.Box(low, high)

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    obs = RNG.normal(size=(64, OBS_DIM)).astype(np.float32)
    actions = RNG.uniform(low, high, size=(64, ACTION_DIM)).astype(np.float32)
    nothing = np.array([{}] * 64)
    data = Transitions(obs=obs, acts=actions, next_obs=obs, dones=np.zeros(64, bool), infos=nothing)
    torch.manual_seed(4)
    trainer = bc.BC(
        observation_space=Still.observation_space,
        action_space=Still.action_space,
        rng=np.random.default_rng(0),
        demonstrations=data,
    )
    trainer.train(n_epochs=5, progress_bar=False)
    policy = trainer.policy
    policy.save(str(HERE / "imitation_bc.pth"))
    save_policy(policy, str(HERE / "imitation_bc_pickled.pt"))  # imitation's own way: the whole module
    model = PPO("MlpPolicy", Still(), policy_kwargs={"net_arch": [16], "activation_fn": torch.nn.ELU}, device="cpu")
    model.save(HERE / "sb3_221_ppo.zip")
    without_pickles(HERE / "sb3_221_ppo.zip")
    scored = torch.as_tensor(RNG.uniform(low, high, size=(N, ACTION_DIM)).astype(np.float32))
    for name, p in (("imitation_bc", policy), ("sb3_221_ppo", model.policy)):
        with torch.no_grad():
            normal = p.get_distribution(torch.as_tensor(OBS)).distribution
            # in the environment's scale
            log_prob = normal.log_prob(scored).sum(-1)
        record(name, normal.mean, normal.stddev, log_prob, actions_unscaled=scored, low=low, high=high)


if __name__ == "__main__":
    {"d3rlpy": make_d3rlpy, "corl": make_corl, "flax": make_flax, "imitation": make_imitation}[sys.argv[1]](
        *sys.argv[2:]
    )
