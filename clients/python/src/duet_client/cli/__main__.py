"""`duet`, or `python -m duet_client.cli`."""

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without its extra, say how to get it."""
    try:
        from duet_client.cli.commands import duet  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        sys.exit(f"duet: {error.name} is missing; install it: pip install 'duet-client[cli]'")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # others write what this terminal may not have
    duet(prog_name="duet")


if __name__ == "__main__":
    main()
