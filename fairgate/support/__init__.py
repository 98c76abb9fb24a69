"""What every command needs: errors, parameters, files, digests, locks, devices, command lines."""
