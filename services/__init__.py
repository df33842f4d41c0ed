"""podloxx: the skinny live traffic viewer for Kubernetes."""

__version__ = "0.1.0"
