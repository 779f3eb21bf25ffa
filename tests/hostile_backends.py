"""Backends that do to the process that plays them what a bad kernel does; tests load them by path.

Each is the reference but for what it does on a forward of two or more channels, so that there is something to shrink.
"""

import asyncio
import ctypes
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bn_spec import Config, Layer, State
from bn_spec.dtypes import Array

from .strange_backends import Renamed, Wrapped
