import pytest
from servers import FrankySim


@pytest.fixture(scope="module")
def franky_sim():
    server = FrankySim("127.7.1.1")
    server.start()
    yield server
    server.kill()
