"""``python -m cronrunner``."""

from cronrunner.cli import main

if __name__ == "__main__":
    main()
