"""Captures as a person asks for them: the next runs of an actor, for some time at most."""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from .asking import CLEANUP_ACTOR
from .clock import Clock
