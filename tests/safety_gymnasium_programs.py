"""Programs as one writes them for Safety-Gymnasium, and what they see there.

Recorded with Safety-Gymnasium 1.0.0 (Python 3.10, Gymnasium 0.28.1, NumPy 1.23.5) by running these very texts: each
leaves `seen`, in which `look` keeps types, shapes and names.
"""

LOOK = '''
import numpy as np


def look(x):
    """What a program can notice of a result: types, shapes and names."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        return ["object", *map(look, x)]
    if isinstance(x, np.ndarray):
        return f"{x.dtype}{list(x.shape)}"
    if isinstance(x, dict):
        return {name: look(x[name]) for name in sorted(x)}
    if isinstance(x, (tuple, list)):
        return [look(item) for item in x]
    return None if x is None else "bool" if isinstance(x, (bool, np.bool_)) else "float"
'''

PROGRAMS = {
    "one episode": """
import safety_gymnasium

env = safety_gymnasium.make("SafetyPointGoal1-v0", max_episode_steps=4)
obs, info = env.reset(seed=0)
seen = [look(obs), look(info), look(env.observation_space.sample()), look(env.action_space.sample())]
ep_ret, ep_cost, ep_len = 0, 0, 0
while True:
    assert env.observation_space.contains(obs)
    act = env.action_space.sample()
    assert env.action_space.contains(act)
    obs, reward, cost, terminated, truncated, info = env.step(act)
    ep_ret += reward
    ep_cost += cost
    ep_len += 1
    if terminated or truncated:
        break
env.close()
seen += [ep_len, terminated, truncated, env.spec.max_episode_steps, env.spec.id]
seen += [look((obs, reward, cost, terminated, truncated, info)), ep_cost == info["cost_sum"] * ep_cost]
""",
    "vector": """
import safety_gymnasium

envs = safety_gymnasium.vector.make(env_id="SafetyPointGoal1-v0", num_envs=2, asynchronous=False, max_episode_steps=2)
obs, info = envs.reset(seed=5, options=None)
seen = [envs.num_envs, look(obs), look(info)]
for space in (envs.single_observation_space, envs.single_action_space, envs.observation_space, envs.action_space):
    seen.append([list(space.shape), str(space.dtype)])
for _ in range(3):
    seen.append(look(envs.step(envs.action_space.sample())))
envs.close()
""",
    "wrappers of one": """
import safety_gymnasium
from safety_gymnasium.wrappers import SafeAutoResetWrapper, SafeNormalizeObservation, SafeRescaleAction, SafeUnsqueeze

env = safety_gymnasium.make("SafetyRacecarGoal1-v0", max_episode_steps=2)
env.reset(seed=0)
obs_space, act_space = env.observation_space, env.action_space
env = SafeAutoResetWrapper(env)
env = SafeRescaleAction(env, -1.0, 1.0)
env = SafeNormalizeObservation(env)
env = SafeUnsqueeze(env)
obs, info = env.reset()
seen = [look(obs), look(info), list(obs_space.shape), act_space.low.tolist(), act_space.high.tolist()]
for _ in range(3):
    seen.append(look(env.step(np.zeros(2))))
""",
    "wrappers of a vector": """
import safety_gymnasium
from safety_gymnasium.vector import SafetySyncVectorEnv
from safety_gymnasium.wrappers import SafeNormalizeCost, SafeNormalizeObservation
from safety_gymnasium.wrappers import SafeNormalizeReward, SafeRescaleAction


def create():
    return SafeRescaleAction(safety_gymnasium.make("SafetyPointGoal1-v0"), -1.0, 1.0)


envs = SafetySyncVectorEnv([create for _ in range(2)])
env = SafeNormalizeCost(SafeNormalizeReward(SafeNormalizeObservation(envs)))
obs, info = env.reset(seed=3)
seen = [look(obs), look(info), list(env.single_observation_space.shape), list(env.single_action_space.shape)]
for _ in range(3):
    seen.append(look(env.step(np.zeros((2, 2)))))
""",
    "both interfaces": """
import functools

import gymnasium
import safety_gymnasium

env = safety_gymnasium.make("SafetyPointGoal1-v0")
env = safety_gymnasium.wrappers.SafetyGymnasium2Gymnasium(env)
env = gymnasium.wrappers.ClipAction(env)
env.reset(seed=0)
seen = [look(env.step(10 * np.ones(2)))]
env = safety_gymnasium.wrappers.Gymnasium2SafetyGymnasium(env)
seen.append(look(env.step(np.ones(2))))
env = safety_gymnasium.wrappers.with_gymnasium_wrappers(
    safety_gymnasium.make("SafetyPointGoal1-v0"),
    functools.partial(gymnasium.wrappers.RescaleAction, min_action=-2.0, max_action=2.0),
)
env.reset(seed=0)
seen.append(look(env.step(np.ones(2))))
env = gymnasium.make("SafetyPointGoal1Gymnasium-v0")
env.reset(seed=0)
result = env.step(env.action_space.sample())
seen.append([len(result), look(result[-1])])
""",
    "automatic reset": """
import safety_gymnasium

env = safety_gymnasium.make(id="SafetyPointGoal1-v0", autoreset=True, max_episode_steps=2, width=64, height=64)
env.reset(seed=1)
seen = [look(env.step(env.action_space.sample())) for _ in range(3)] + [env.env.spec.max_episode_steps]
""",
}

# fmt: off
SEEN = {'one episode': ['float64[60]', {}, 'float64[60]', 'float64[2]', 4, False, True, 4, 'SafetyPointGoal1-v0',
                 ['float64[60]', 'float', 'float', 'bool', 'bool', {'cost_hazards': 'float', 'cost_sum': 'float'}],
                 True],
 'vector': [2, 'float64[2, 60]', {}, [[60], 'float64'], [[2], 'float64'], [[2, 60], 'float64'], [[2, 2], 'float64'],
            ['float64[2, 60]', 'float64[2]', 'float64[2]', 'bool[2]', 'bool[2]',
             {'_cost_hazards': 'bool[2]',
              '_cost_sum': 'bool[2]',
              'cost_hazards': 'float64[2]',
              'cost_sum': 'float64[2]'}],
            ['float64[2, 60]', 'float64[2]', 'float64[2]', 'bool[2]', 'bool[2]',
             {'_final_info': 'bool[2]',
              '_final_observation': 'bool[2]',
              'final_info': ['object', {'cost_hazards': 'float', 'cost_sum': 'float'},
                             {'cost_hazards': 'float', 'cost_sum': 'float'}],
              'final_observation': ['object', 'float64[60]', 'float64[60]']}],
            ['float64[2, 60]', 'float64[2]', 'float64[2]', 'bool[2]', 'bool[2]',
             {'_cost_hazards': 'bool[2]',
              '_cost_sum': 'bool[2]',
              'cost_hazards': 'float64[2]',
              'cost_sum': 'float64[2]'}]],
 'wrappers of one': ['float64[1, 60]', {}, [60], [-20.0, -0.7850000262260437], [20.0, 0.7850000262260437],
                     ['float64[1, 60]', 'float64[1]', 'float64[1]', 'bool[1]', 'bool[1]',
                      {'cost_hazards': 'float', 'cost_sum': 'float'}],
                     ['float64[1, 60]', 'float64[1]', 'float64[1]', 'bool[1]', 'bool[1]',
                      {'final_info': {'cost_hazards': 'float', 'cost_sum': 'float'},
                       'final_observation': 'float64[1, 60]',
                       'original_final_observation': 'float64[1, 60]'}],
                     ['float64[1, 60]', 'float64[1]', 'float64[1]', 'bool[1]', 'bool[1]',
                      {'cost_hazards': 'float', 'cost_sum': 'float'}]],
 'wrappers of a vector': ['float64[2, 60]', {}, [60], [2],
                          ['float64[2, 60]', 'float64[2]', 'float64[2]', 'bool[2]', 'bool[2]',
                           {'_cost_hazards': 'bool[2]',
                            '_cost_sum': 'bool[2]',
                            'cost_hazards': 'float64[2]',
                            'cost_sum': 'float64[2]'}],
                          ['float64[2, 60]', 'float64[2]', 'float64[2]', 'bool[2]', 'bool[2]',
                           {'_cost_hazards': 'bool[2]',
                            '_cost_sum': 'bool[2]',
                            'cost_hazards': 'float64[2]',
                            'cost_sum': 'float64[2]'}],
                          ['float64[2, 60]', 'float64[2]', 'float64[2]', 'bool[2]', 'bool[2]',
                           {'_cost_hazards': 'bool[2]',
                            '_cost_sum': 'bool[2]',
                            'cost_hazards': 'float64[2]',
                            'cost_sum': 'float64[2]'}]],
 'both interfaces': [['float64[60]', 'float', 'bool', 'bool',
                      {'cost': 'float', 'cost_hazards': 'float', 'cost_sum': 'float'}],
                     ['float64[60]', 'float', 'float', 'bool', 'bool',
                      {'cost': 'float', 'cost_hazards': 'float', 'cost_sum': 'float'}],
                     ['float64[60]', 'float', 'float', 'bool', 'bool',
                      {'cost': 'float', 'cost_hazards': 'float', 'cost_sum': 'float'}],
                     [5, {'cost': 'float', 'cost_hazards': 'float', 'cost_sum': 'float'}]],
 'automatic reset': [['float64[60]', 'float', 'float', 'bool', 'bool',
                      {'cost_hazards': 'float', 'cost_sum': 'float'}],
                     ['float64[60]', 'float', 'float', 'bool', 'bool',
                      {'final_info': {'cost_hazards': 'float', 'cost_sum': 'float'},
                       'final_observation': 'float64[60]'}],
                     ['float64[60]', 'float', 'float', 'bool', 'bool',
                      {'cost_hazards': 'float', 'cost_sum': 'float'}],
                     2]}
# fmt: on
