"""`python -m triptych.pipeline` is `triptych`."""

from triptych.pipeline.cli.main import main

main()
