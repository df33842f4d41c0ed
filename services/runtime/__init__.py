"""Plumbing that every service needs: settings, log, signals, Redis."""
