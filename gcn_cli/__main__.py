"""`python -m gcn_cli` is the same as the installed command `gcn`."""

from gcn_cli.cli.app import main

if __name__ == "__main__":
    main()
