from servers import franky_sim  # noqa: F401  a fixture
