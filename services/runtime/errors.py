"""The errors that reach a user, each with its exit code; and what only becomes one."""

from __future__ import annotations


class PodloxxError(Exception):
    """Something went wrong; the message says what, where and what to do."""

    exit_code = 1


class UsageError(PodloxxError):
    """A command, setting or file is wrong."""

    exit_code = 2


class PrivilegeError(PodloxxError):
    """A privilege is missing."""

    exit_code = 3


class LeftoverError(PodloxxError):
    """Something of ours could not be removed."""

    exit_code = 4


class CredentialsError(OSError):
    """Credentials for an API server cannot be renewed; the message says why."""
