"""Frequencies of scaled rotary embeddings against transformers' own functions, for any numbers."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdsample.models.families import FAMILIES as READERS
from mdsample.models.families.special import Special
from mdsample.models.families.trunk import Trunk

factor = st.sampled_from([0.5, 1.0, 1.5, 4.0, 16.0])
yarn = st.fixed_dictionaries(
    {
        "rope_type": st.just("yarn"),
        "factor": factor,
        "original_max_position_embeddings": st.sampled_from([3, 64, 8192]),
    },
    optional={
        "beta_fast": st.sampled_from([2.0, 32.0, None]),
        "beta_slow": st.sampled_from([0.25, 1.0, None]),
        "truncate": st.booleans(),
        "attention_factor": st.sampled_from([0.7, None]),
        "mscale": st.sampled_from([0.5, 1.0, 0.0]),
        "mscale_all_dim": st.sampled_from([0.8, None]),
    },
)
llama3 = st.fixed_dictionaries(
    {
        **{"rope_type": st.just("llama3"), "factor": factor, "low_freq_factor": st.sampled_from([0.5, 1.0])},
        **{
            "high_freq_factor": st.sampled_from([1.5, 4.0]),
            "original_max_position_embeddings": st.sampled_from([8, 500]),
        },
    }
)
linear = st.fixed_dictionaries({"rope_type": st.just("linear"), "factor": factor})
#: a ramp of no length
STEP = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 3}


def read(scaling: dict[str, Any], theta: float, size: int) -> Trunk:
    fields = {**FAMILIES["sdar"][0], "head_dim": size, "rope_theta": theta, "rope_scaling": scaling}
    return READERS["sdar"](fields, Special())


@pytest.mark.backend
@settings(max_examples=100, deadline=None)
@given(st.one_of(linear, llama3, yarn), st.sampled_from([10.0, 10000.0, 1e6]), st.sampled_from([4, 8, 64]))
@example(STEP, 10000.0, 8)
def test_as_transformers_turns(scaling: dict[str, Any], theta: float, size: int) -> None:
    transformers = pytest.importorskip("transformers")
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = transformers.LlamaConfig(head_dim=size, rope_parameters={**scaling, "rope_theta": theta})
    frequencies, enlarged = functions[scaling["rope_type"]](config, None)
    positions = np.array([0, 1, 5])
    angles = positions[:, None] * frequencies.numpy().astype(np.float64)
    cos, sin = (turn[:, 0] for turn in read(scaling, theta, size).turns(positions))
    np.testing.assert_allclose(cos, np.cos(angles) * enlarged, rtol=0, atol=2e-6 * max(1, enlarged))
    np.testing.assert_allclose(sin, np.sin(angles) * enlarged, rtol=0, atol=2e-6 * max(1, enlarged))
