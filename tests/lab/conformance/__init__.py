"""Is the lab like FreeBSD? Runs what is on record on fresh lab machines and compares answer by answer.

On record are recordings of a real FreeBSD, a folder of pairs (../transcripts/freebsd-13.2 unless told otherwise): N-name.sh,
what was printed for it in N-name.txt, and prelude.sh, which comes before each script; and cases/, what FreeBSD's manual
pages, sources and tests say, each with its source. `transcript` cuts and compares, `cases` reads case files, `expected`
knows the differences that have a reason (differences.toml), `forms` the commands in our own source (all pure); `machine`
runs a script on a fresh lab machine. `python -m tests.lab.conformance` does all of it and writes build/conformance.json.
It fails for a difference without a reason, for a reason without a difference, for a form of command that the product or a
scenario uses and nobody has recorded an answer to, and below nine of ten. `freebsd/` runs FreeBSD's own tests.
"""
