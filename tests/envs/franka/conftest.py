import pytest
from servers import FrankySim, host_of_our_own


@pytest.fixture(scope="module")
def franky_sim():
    server = FrankySim(host_of_our_own(7))
    server.start()
    yield server
    server.kill()
