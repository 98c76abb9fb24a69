"""`fairgate smoke`: the whole pipeline on a two-layer model and made-up data, in under a minute."""
