"""BIRD 2 as the fabric: see features.py."""

from __future__ import annotations

from tests.interop.features import Features
from tests.interop.routers import Bird


class TestBird(Features):
    router = Bird
