"""`podloxx-launch`: starts the services, shows them, and leaves nothing behind."""
