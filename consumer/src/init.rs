//! What an application's own APIs are made with.

use client::JournalClient;
use runtime::{Clock, TaskGroup};

use crate::{Admission, Peers, Resolver};

/// The process which runs an application, before it serves. See [`crate::Application::init_application`]. Cheap to clone.
///
/// An API which asks for a shard resolves it. If this process answers, the resolution has a reader of the shard's store.
/// If another one does, the request goes on to it, with the resolution's header; a request which came with a header is
/// resolved with that, and without the permission to proxy, so that it goes no further.
///
/// Where the process has keys of access tokens, callers of an API need one. A service of gRPC is put behind
/// [`Admission::guard`], as the Shard service is, and its methods begin with [`crate::Access::of`]; what is asked over HTTP
/// begins with [`Admission::admit_http`]. Either resolves what the token selects ([`crate::ResolveArgs::visible`]). What goes on
/// to another process is sent as [`Peers::request`] makes it.
#[derive(Clone)]
pub struct InitContext {
    /// Finds shards, here and elsewhere.
    pub resolver: Resolver,
    /// Admits callers.
    pub admission: Admission,
    /// Connections to the other processes of the group.
    pub peers: Peers,
    /// The client of brokers.
    pub journals: JournalClient,
    /// Tasks of the APIs. They are cancelled when the process has given up its shards.
    pub tasks: TaskGroup,
    /// Time.
    pub clock: Clock,
    /// Largest gRPC message that the process receives, bytes.
    pub max_message_bytes: usize,
}
