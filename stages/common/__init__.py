"""What two or more stages share: parameters, digests, atomic files, records, the metric engine. Nothing here imports a stage."""
