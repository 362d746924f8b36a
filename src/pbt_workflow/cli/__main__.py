"""`python -m pbt_workflow.cli`, for where the `pbt` script is not on the path."""

from pbt_workflow.cli import main

main()
