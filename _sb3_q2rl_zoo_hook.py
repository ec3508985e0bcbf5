"""
Start-up hook: makes ``python -m rl_zoo3.train --algo qgated_sac`` work after a mere ``pip install``.

rl_zoo3 has no plug-in mechanism, so ``sb3_q2rl_zoo.pth`` imports this module when Python starts. It waits for
``rl_zoo3.exp_manager`` (which train and enjoy import before they read their command line) and then registers our
algorithms. It runs in every program of the environment, hence: standard library only, no heavy import, and no failure
that could stop somebody else's program. ``SB3_Q2RL_NO_ZOO=1`` switches it off.
"""

import os
import sys

TARGET = "rl_zoo3.exp_manager"


class ZooFinder:
    """Meta path finder that lets the target be imported as usual and registers our algorithms right after."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]  # keeps start-up free of typing
        if name != TARGET:
            return None
        sys.meta_path.remove(cls)
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module):  # type: ignore[no-untyped-def]
            execute(module)
            try:
                from sb3_q2rl.zoo.registration import register

                register()
            except Exception as error:
                print(f"sb3_q2rl: not registered in rl_zoo3: {type(error).__name__}: {error}", file=sys.stderr)

        spec.loader.exec_module = execute_and_register
        return spec


if os.environ.get("SB3_Q2RL_NO_ZOO", "0") in ("", "0"):
    sys.meta_path.insert(0, ZooFinder)
