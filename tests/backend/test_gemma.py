"""DiffusionGemma against transformers: the same weights, with and without what was predicted before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gemma
import numpy as np
import pytest
from queries import NOTHING

from backends import BACKENDS
from mdsample.backend.setup import Setup
from mdsample.core.rows import Rows
from mdsample.models.cache import Exact
from mdsample.models.denoiser import Query
