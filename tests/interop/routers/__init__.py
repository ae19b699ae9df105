"""The routers of the ground, a module each."""

from tests.interop.routers.bird import Bird
from tests.interop.routers.frr import Frr
from tests.interop.routers.gobgp import GoBgp
from tests.interop.routers.openbgpd import OpenBgpd
from tests.interop.routers.router import Router

ROUTERS: tuple[type[Router], ...] = (Bird, Frr, GoBgp, OpenBgpd)

__all__ = ["ROUTERS", "Bird", "Frr", "GoBgp", "OpenBgpd", "Router"]
