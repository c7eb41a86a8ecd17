"""`python -m pathencoder`: the command line where the console script is not on the PATH."""

from pathencoder.cli.main import main

main()
