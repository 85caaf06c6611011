"""The console script `enrollment`: `python -m service` by another name."""

import runpy


def main() -> None:
    """Run `service/__main__.py` from its first line on, which comes before the imports that take long."""
    runpy.run_module("service", run_name="__main__", alter_sys=False)
