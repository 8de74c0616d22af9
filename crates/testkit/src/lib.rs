//! An in-process cluster and fault wrappers for tests.
