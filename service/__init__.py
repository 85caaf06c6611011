"""Who is enrolled in what: students, courses and enrollments, over HTTP or without it."""

from service.app import create_app
from service.schema import connect, migrate
from service.settings import Settings

__all__ = ["Settings", "connect", "create_app", "migrate"]
