"""Who is enrolled in what: students, courses and enrollments, over HTTP or without it."""

from importlib import import_module

from service.version import __version__ as __version__

TYPE_CHECKING = False  # Type checkers take a constant of this name for true; that of `typing` needs an import.
if TYPE_CHECKING:
    from service.app import create_app
    from service.settings import Settings
    from service.storage.kinds import connect, migrate
else:
    _HOMES = {
        "Settings": "settings",
        "connect": "storage.kinds",
        "create_app": "app",
        "migrate": "storage.kinds",
    }

    def __getattr__(name: str) -> object:
        """Import a name when it is first asked for, because the command line sees to Ctrl+C before long imports."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"service.{_HOMES[name]}"), name)


__all__ = ["Settings", "connect", "create_app", "migrate"]
