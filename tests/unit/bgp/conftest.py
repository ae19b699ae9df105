"""ExaBGP's parsers want its logger set up; silent will do."""

from __future__ import annotations

from exabgp.environment import getenv
from exabgp.logger import log

getenv().log.enable = False
log.init(getenv())
