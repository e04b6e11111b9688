"""`python -m triptych` is the command `triptych`."""

from triptych.pipeline.cli.main import main

main()
