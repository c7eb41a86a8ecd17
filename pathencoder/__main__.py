"""`python -m pathencoder`: the command, where the console script is not on the path."""

from pathencoder.cli.main import main

main()
