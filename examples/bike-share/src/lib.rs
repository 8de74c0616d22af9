//! Finds cycles in the rides of shared bikes, and serves rides.
