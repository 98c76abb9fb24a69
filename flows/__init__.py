"""Prefect flows around the DVC stages. Flows import stages; nothing imports flows."""
