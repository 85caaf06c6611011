"""Ask a live server for all that its document promises: `make contract`, or `make contract SECONDS=600`.

schemathesis takes the document from the server, and sends what fits it and what does not. Then openapi-python-client
makes a client of the document, every module of which is imported. Where npm is found, openapi-typescript makes types of
the document, and a program that uses them is compiled.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from fuzz import live

HERE = Path(__file__).parent
IMPORT_ALL = """
import pkgutil, enrollment_service_client as client
names = [module.name for module in pkgutil.walk_packages(client.__path__, "enrollment_service_client.")]
for name in names:
    __import__(name)
print(f"{len(names)} modules of a generated client are imported.")
"""


@click.command(help=__doc__)
@click.option("--seconds", default=60, help="How long to ask.", show_default=True)
@click.option("--seed", default=1, help="What the made-up requests are made from.", show_default=True)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path, seconds: int, seed: int) -> None:
    """Ask the server with the tools that are in a folder."""
    with TemporaryDirectory() as place, live.serving({}) as server:
        host, port = server.address
        url = f"http://{host}:{port}/openapi.json"
        options = ["--seed", str(seed), "--max-time", str(seconds), "--request-timeout", "20"]
        hooks = {**os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks"}
        config = ["--config-file", str(HERE / "schemathesis.toml")]
        ask = [str(folder / "schemathesis"), *config, "run", url, *options]
        made = str(Path(place, "enrollment_service_client"))
        make = [str(folder / "openapi-python-client"), "generate", "--meta", "none", "--url", url, "--output-path"]
        found = subprocess.run(ask, cwd=place, env=hooks, check=False).returncode
        server.check()
        tools = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        subprocess.run([*make, made], cwd=place, env=tools, stdout=subprocess.DEVNULL, check=True)
        subprocess.run([folder / "python", "-c", IMPORT_ALL], cwd=place, check=True)
        compile_types(Path(place, "types"), url)
        server.check_end()
    sys.exit(found)


def compile_types(folder: Path, url: str) -> None:
    """Compile a program in TypeScript against the types that are made of the document, in a folder that is made."""
    if not shutil.which("npm"):
        click.echo("No npm is on this machine, so no types are made for TypeScript: apt install npm")
        return
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    tools = folder / "node_modules" / ".bin"
    for command in (
        ["npm", "ci", "--silent", "--no-audit", "--no-fund"],
        [str(tools / "openapi-typescript"), url, "--output", "schema.ts"],
        [str(tools / "tsc")],
    ):
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    click.echo("A program in TypeScript is compiled against the types of the document.")


if __name__ == "__main__":
    main()
