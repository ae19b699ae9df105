"""Is the lab like FreeBSD? Runs recorded scripts on fresh lab machines and compares answer by answer.

A folder of pairs (../transcripts/freebsd-13.2 unless told otherwise) holds N-name.sh, what a real FreeBSD
printed for it in N-name.txt, and prelude.sh, which comes before each script. `transcript` cuts and compares
(pure), `machine` runs a script on a fresh lab machine, `python -m tests.lab.conformance` does all of it and
writes build/conformance.json.
"""
