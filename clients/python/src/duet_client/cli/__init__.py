"""The command line `duet`. Needs `pip install duet-client[cli]`."""
