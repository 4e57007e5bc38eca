"""`python -m coatcheck` is the command `coatcheck`."""

from coatcheck.cli import main

if __name__ == "__main__":
    main()
