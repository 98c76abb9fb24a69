"""The last stage: verdict -> MLflow run and, for an approved candidate, a model version that serves anywhere."""
