//! Fragment stores over the object_store crate.
