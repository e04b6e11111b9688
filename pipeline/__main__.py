"""`python -m pipeline` is `triptych`."""

from pipeline.cli import main

main()
