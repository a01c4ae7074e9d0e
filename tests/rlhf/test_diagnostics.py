"""The onset of reward hacking, on histories whose truth is known."""

import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.rlhf import hacking_onset

STEPS = np.arange(200)
PROXY = STEPS / 50.0
GOLD = np.where(STEPS < 80, STEPS / 100, 0.8 - (STEPS - 80) / 100)  # turns at 80


def noise(seed, scale=0.1):
    return np.random.default_rng(seed).normal(scale=scale, size=200)


@pytest.mark.parametrize("seed", range(5))
def test_the_turn_is_found(seed):
    onset = hacking_onset(PROXY + noise(seed), GOLD + noise(seed + 100))
    assert onset is not None
    assert abs(onset.peak - 80) < 20
    assert 80 < onset.noticed < 120


@pytest.mark.parametrize("seed", range(5))
def test_no_alarm_where_there_is_no_hacking(seed):
    assert hacking_onset(PROXY + noise(seed), np.minimum(GOLD.max(), STEPS / 100) + noise(seed + 100)) is None
    assert hacking_onset(PROXY + noise(seed), PROXY + noise(seed + 100)) is None
    both_fall = GOLD + noise(seed), GOLD + noise(seed + 100)
    assert hacking_onset(*both_fall) is None, "the proxy falls too: that is not hacking"


def test_without_noise_it_is_the_turn_itself():
    onset = hacking_onset([0.0, 1, 2, 3, 4, 5], [0.0, 1, 2, 1, 0, -1], window=1, z=0.0)
    assert onset == (2, 3)


def test_short_and_uneven_histories():
    assert hacking_onset([0.0] * 5, [1.0] * 5) is None
    with pytest.raises(UserError, match="5 and 4 entries"):
        hacking_onset([0.0] * 5, [1.0] * 4)
