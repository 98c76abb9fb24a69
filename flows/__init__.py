"""How the stages are run, scheduled and promoted.

`release` runs the DVC stages under Prefect, `promotion` moves the registry's aliases and writes
the ledger, and `deployments` holds both as Prefect flows. Each command has a module of its name.
"""
