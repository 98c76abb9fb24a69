"""The gate: a policy and paired statistics decide whether a candidate may be released.

No torch, DVC, MLflow or Prefect, and no files but the policy's.
"""
