"""Eight virtual devices for the tests of sharding; everything else runs on the first."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def one_device():
    from jaxalign.dist import make_mesh

    return make_mesh(1)
