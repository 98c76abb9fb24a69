"""What every command needs: errors, parameters, files, digests, devices, the frame of a command line."""
