"""The tests that need a Linux machine, by their paths below this folder, each with the reason.

On FreeBSD they are left out: what they show of the lab's own kernel and commands is there the machine's matter, and the rest
is about the same code as on Linux. tests/conftest.py uses this, tests/unit/test_linux_only.py holds it to what there is.
"""

from __future__ import annotations

#: Not even imported elsewhere.
NOT_COLLECTED = {
    "interop": "its routers live in Linux network namespaces",
    "lab/kernel": "the lab's kernel plays FreeBSD on Linux",
    "lab/managers": "the managers' scripts run in Linux mount namespaces, beside the lab's kernel",
    "lab/test_bench.py": "the bench reads /proc",
    "lab/test_cleanup.py": "a lab kernel that ends is Linux's; on FreeBSD: tests.lab.ground_freebsd.clean",
    "lab/test_conformance.py": "it holds the lab's commands against FreeBSD's own",
    "lab/test_fabric.py": "it says claims by hand, with what interop has for that",
    "lab/test_ground_freebsd.py": "it puts a lab kernel in FreeBSD's place",
    "lab/test_jail8.py": "it tests the lab's jail(8)",
    "lab/test_ownership.py": "one of its hosts claims by hand, with what interop has for that",
    "lab/test_ownership_healing.py": "as lab/test_ownership.py",
    "lab/test_traps.py": "it tests that the lab plays FreeBSD's traps",
    "unit/lab": "it tests the lab's commands",
}
#: Skipped elsewhere.
SKIPPED = {
    "lab/test_faults.py::test_a_command_that_prints_a_gigabyte": "it reads the agent's memory from /proc",
    "lab/test_shutdown.py": "the service of its host is watched in /proc",
    "unit/deploy/test_services.py": "it watches processes in /proc",
    "unit/test_command.py::test_a_clean_environment_and_no_descriptors": "it lists /proc/self/fd",
    "unit/test_command.py::test_a_hung_command_is_ended_with_what_it_started": "it reads /proc",
    "unit/test_hook.py::test_a_full_spool": "it mounts a tmpfs that only it sees: unshare(1)",
    "unit/test_hook.py::test_a_hook_costs_few_processes": "it counts in a pid namespace: unshare(1)",
    "unit/test_spool.py::test_a_full_file_system_keeps_nothing_but_loses_no_event": "it mounts a tmpfs: unshare(1)",
    "unit/test_spool.py::test_where_the_kernel_watches_nothing_the_spool_is_looked_at": "it takes inotify away",
}
