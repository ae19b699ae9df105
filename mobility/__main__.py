"""`python -m mobility` is the `mobility` command."""

from mobility.cli import main

raise SystemExit(main())
