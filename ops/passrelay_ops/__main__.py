"""`python -m passrelay_ops` is `passrelay`: for a Python without console scripts, as on a Windows controller."""

from passrelay_ops.cli import main

if __name__ == "__main__":
    main()
