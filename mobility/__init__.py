"""Makes FreeBSD jails mobile: a jail owns its /32 and /128, whichever host runs it announces them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mobility")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
