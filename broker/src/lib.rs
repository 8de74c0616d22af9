//! The journal service: append, read, list, apply, fragments.
//!
//! A [`Broker`] serves the journals which the allocator assigns to it. The [`Resolver`] follows the mirror of etcd and
//! starts, wakes and stops one replica for each assigned journal; every request is resolved by it, to this process, to
//! a peer, or to a status. Requests are decided by pure functions of what the resolver and the replicas publish.
//!
//! This crate knows bytes and not messages, and nothing of consumers.

mod apply;
mod data_dir;
mod drain;
#[cfg(test)]
mod fixtures;
mod fragments;
mod key_space;
mod list;
mod local_set;
mod peers;
mod read;
mod resolution;

// Owned with the append path.
