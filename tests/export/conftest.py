"""A graph that several tests export is converted once."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _shared_graphs(shared_graphs: None) -> None:
    pass
