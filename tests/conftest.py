import functools
import signal

import pytest

from sb3_q2rl.q2rl.q_estimation import QEstimate


def pytest_configure():
    # What a shell starts in the background ignores Ctrl-C, and so would the robots that are to be stopped by it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def quick_fit(monkeypatch):
    """Tests that do not look at the quality of V_BC fit it for a moment only."""
    short = functools.partialmethod(QEstimate.fit, max_steps=30, check_every=10, batch_size=16)
    monkeypatch.setattr(QEstimate, "fit", short)


@pytest.fixture(autouse=True, scope="session")
def logs_of_its_own(tmp_path_factory):
    """SB3 opens a log folder for every run that was given none; they go where pytest tidies up."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("logs")))
        yield
