"""Servers of a tiny random world as fixtures."""

import contextlib

import pytest
import torch
from serving import serving

from tiny import make_starts, make_world

torch.set_num_threads(1)  # tiny models run faster without the overhead of several threads


@pytest.fixture(scope="session")
def world():
    return make_world()


@pytest.fixture(scope="session")
def starts():
    return make_starts()


@pytest.fixture
def serve(world, starts):
    """Start servers with the options that a test chooses."""
    with contextlib.ExitStack() as stack:
        yield lambda world=world, starts=starts, **options: stack.enter_context(serving(world, starts, **options))


@pytest.fixture
def served(serve):
    """Return a server with default options."""
    return serve()
