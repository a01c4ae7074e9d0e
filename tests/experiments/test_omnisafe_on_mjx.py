"""Worlds asked for over the wire give what the same worlds give when called."""

import socket
import sys
import threading

import jax
import numpy as np
import pytest
from probe_envs import probe

from envs_mjx.adapters.gymnasium import VectorEnvironment

SEED, LANES, STEPS = 5, 3, 7


@pytest.fixture(scope="module")
def make():
    def cost(obs, action):
        return (action > 0.2).astype(np.float32)

    env = probe("Wire", lambda o, a: a[0] + o[0], cost, horizon=3, draw=lambda key: jax.random.normal(key, (1,)))
    return lambda lanes: VectorEnvironment(env, lanes)


@pytest.fixture(params=[LANES, 1])
def remote(bridge, make, request):
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=bridge.server.serve, args=(theirs, make(request.param)))
    thread.start()
    worlds = bridge.wire.RemoteWorlds(ours)
    yield worlds
    worlds.close()
    thread.join(timeout=10)
    theirs.close()
    assert not thread.is_alive(), "the server must end when the client closes"


def test_remote_worlds_are_the_worlds(remote, make):
    lanes = remote.num_envs
    direct, random = make(lanes), np.random.default_rng(0)
    assert (remote.obs_size, remote.horizon) == (2, 3)
    np.testing.assert_array_equal(remote.action_low, direct.single_action_space.low)
    np.testing.assert_array_equal(remote.reset(SEED), direct.reset(seed=SEED)[0])
    ended = 0
    for _ in range(STEPS):
        action = random.uniform(-1, 1, (lanes, 1)).astype(np.float32)
        after, (obs, reward, terminated, truncated, info) = remote.step(action), direct.step(action)
        expected = {"obs": obs, "reward": reward, "cost": info["cost"], "terminated": terminated}
        for name, value in (expected | {"truncated": truncated}).items():
            np.testing.assert_array_equal(after[name], value, err_msg=name, strict=True)
        if terminated.any():
            ended += 1
            np.testing.assert_array_equal(after["final_obs"], np.stack(list(info["final_obs"])))
            assert np.all(after["final_obs"][:, 0] != after["obs"][:, 0])  # another number was drawn at the reset
    assert ended == 2
    np.testing.assert_array_equal(remote.reset(), direct.reset()[0])  # both go on with the next episode


def test_mistakes_come_back_as_sentences_and_the_worlds_go_on(bridge, remote):
    first = remote.reset(SEED)
    with pytest.raises(bridge.wire.WorldsError, match="finite"):
        remote.step(np.full((remote.num_envs, 1), np.nan, np.float32))
    with pytest.raises(bridge.wire.WorldsError, match="shape"):
        remote.step(np.zeros((remote.num_envs, 2), np.float32))
    with pytest.raises(bridge.wire.WorldsError, match="seed"):
        remote.reset(2**40)
    np.testing.assert_array_equal(remote.reset(SEED), first)


def test_what_cannot_be_started_says_so(bridge):
    with pytest.raises(bridge.wire.WorldsError, match="name the Python that has envs_mjx"):
        bridge.wire.launch("/no/such/python", "SafetyPointGoal1-v0", 2)
    with pytest.raises(bridge.wire.WorldsError, match="Did you mean 'SafetyPointGoal1-v0'"):
        bridge.wire.launch(sys.executable, "SafetyPointGoal1", 2)
