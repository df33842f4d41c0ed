"""The container images: named, built, brought into a cluster and pushed."""
