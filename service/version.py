"""The version of the service, which the package, the command line and the document of the API say."""

__version__ = "0.2.0"
