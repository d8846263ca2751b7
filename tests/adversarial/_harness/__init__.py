"""The hostile host: everything that an attack needs to lie to a client, to the monitor, or on the disk."""
