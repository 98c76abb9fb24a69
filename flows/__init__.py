"""How the stages are run, scheduled and promoted: the DVC runner, the release flow, the second deployment and its ledger."""
