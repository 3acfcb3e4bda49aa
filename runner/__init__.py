"""backend-labs: production incidents that one can run, with real servers, real load and a verdict."""

__version__ = "0.1.0"
