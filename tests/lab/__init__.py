"""The lab: FreeBSD-shaped hosts on Linux network namespaces."""
