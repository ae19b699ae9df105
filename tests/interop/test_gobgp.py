"""GoBGP as the fabric: see features.py."""

from __future__ import annotations

from tests.interop.features import Features
from tests.interop.routers import GoBgp


class TestGoBgp(Features):
    router = GoBgp
