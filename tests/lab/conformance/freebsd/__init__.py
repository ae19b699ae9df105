"""FreeBSD's own network tests, run through the lab's commands.

The tests are FreeBSD's and not part of this repository. MOBILITY_FREEBSD_TESTS names a folder like /usr/tests (what
tests.txz of a release holds, or the same files from the sources: tests/sys as sys, sbin/route/tests as sbin/route, …;
names with or without .sh). atf.sh here plays atf-sh(1) for them; tests.toml says which are run, and why one may fail.
"""
