"""The last stage: record the verdict in MLflow, and register an approved candidate as a version."""
