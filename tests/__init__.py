"""Tests: unit/ needs no root, lab/ runs FreeBSD-shaped hosts on Linux network namespaces."""
