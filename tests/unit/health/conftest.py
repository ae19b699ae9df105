"""What the tests of checks share."""

from tests.unit.health.servers import certificate, tls

__all__ = ["certificate", "tls"]
