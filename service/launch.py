"""Run `python -m service` under the name `enrollment`, which is installed as a console script."""

import runpy


def main() -> None:
    """Run `service/__main__.py` as a script: its first lines see to Ctrl+C before the imports that take long."""
    runpy.run_module("service", run_name="__main__", alter_sys=False)
