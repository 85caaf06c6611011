"""Who is enrolled in what: students, courses and enrollments, over HTTP or without it."""

from importlib import import_module

TYPE_CHECKING = False  # As a type checker reads it, this is true; typing's own would have to be imported.
if TYPE_CHECKING:
    from service.app import create_app
    from service.schema import connect, migrate
    from service.settings import Settings
else:
    _HOMES = {"Settings": "settings", "connect": "schema", "create_app": "app", "migrate": "schema"}

    def __getattr__(name: str) -> object:
        """Import what is asked for, and no sooner: the command line sees to Ctrl+C before it imports all that."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"service.{_HOMES[name]}"), name)


__version__ = "0.1.0"
__all__ = ["Settings", "connect", "create_app", "migrate"]
