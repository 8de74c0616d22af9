//! The only door to time, randomness, spawning, signals, configuration, metrics and servers.
