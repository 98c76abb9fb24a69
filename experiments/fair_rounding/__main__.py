"""`python -m experiments.fair_rounding`: run the declared cells."""

import sys

from experiments.fair_rounding.run import main

sys.exit(main())
