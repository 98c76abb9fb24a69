"""Scripts that measure, and what they recorded (results/*.json).

Nothing here is imported by a stage or a flow.
"""

import os

# As `python -m stages.quantize` does, before torch is imported
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
