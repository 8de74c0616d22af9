//! Finds who serves a shard, and waits until it can be served (consumer protocol §5.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use keyspace::check_proxy_header;
use proto::consumer::{ShardSpec, Status};
use proto::protocol::{Header, LabelSelector};
use proto::{MemberId, Revision};
use tokio::sync::watch;

use super::decision::{self, Decision, ResolveError};
use crate::schema::{KeySpace, Mirror};
use crate::shard::{AnyReader, Core, ShardSet};
use crate::{Progress, Store};

/// What a request asks of [`Resolver::resolve`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ResolveArgs<'a> {
    /// The id of the shard.
    pub shard: &'a str,
    /// Whether another process may answer.
    pub may_proxy: bool,
    /// The header of a proxying process.
    pub proxy_header: Option<&'a Header>,
    /// Which shards the request may see; `None` is every shard. Another one is as if it did not exist.
    pub visible: Option<&'a LabelSelector>,
    /// Offsets of source journals which must be read through. Offset zero, and journals which are no source, are not
    /// waited for.
    pub read_through: Option<&'a BTreeMap<String, i64>>,
}

/// How a request is to be answered.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// OK, or why the request cannot go on.
    pub status: Status,
    /// Header of the answer, or of the proxied request.
    pub header: Header,
    /// Whether this process answers.
    pub is_local: bool,
    /// The specification, if the shard exists.
    pub spec: Option<Arc<ShardSpec>>,
    /// How far the shard is. There if the status is OK and this process answers.
    pub progress: Option<Arc<Progress>>,
    reader: Option<AnyReader>,
}

impl Resolution {
    /// A reader of the shard's store, of which `S` is the type. There if this process answers and the store is open.
    pub fn reader<S: Store>(&self) -> Option<S::Reader> {
        self.reader.as_ref()?.downcast_ref::<S::Reader>().cloned()
    }
}

/// Resolves requests. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    me: MemberId,
    mirror: Mirror,
    shards: ShardSet,
}

impl Resolver {
    /// A resolver of member `me`, which serves `shards`.
    pub(crate) fn new(me: MemberId, mirror: Mirror, shards: ShardSet) -> Resolver {
        Resolver { me, mirror, shards }
    }

    /// The key space that requests are resolved with.
    pub fn key_space(&self) -> Arc<KeySpace> {
        Arc::clone(&self.shards.view().key_space)
    }

    /// The mirror, with the etcd client and the keys.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The header of answers which concern no particular shard.
    pub fn unrouted_header(&self) -> Header {
        self.key_space().unrouted_header(&self.me)
    }

    /// The specifications of the shards which read `journal`, in the order of their ids.
    pub fn shards_with_source(&self, journal: &str) -> Vec<Arc<ShardSpec>> {
        let key_space = self.key_space();
        let reads = |spec: &ShardSpec| spec.sources.iter().any(|source| source.journal == journal);
        key_space.items().values().map(|item| &item.value).filter(|spec| reads(spec)).cloned().collect()
    }

    /// Resolves a request. If this process answers, waits until the shard's store is open and it has read through what
    /// the request asks for. Dropping the future abandons the request.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, args: ResolveArgs<'_>) -> Result<Resolution, ResolveError> {
        if let Some(header) = args.proxy_header {
            let key_space = self.key_space();
            let local = key_space.local_id(&self.me, decision::MISSING_ZONE);
            check_proxy_header(header, key_space.header(), &local)?;
            self.wait_for(header.revision()).await?;
        }
        let view = self.shards.view();
        let decision = decision::decide(&view.key_space, &self.me, args.shard, args.visible, args.may_proxy);
        if decision.status != Status::Ok || !decision.is_local {
            return Ok(resolution(decision, None, None));
        }
        if view.has_stopped {
            return Err(ResolveError::Stopped);
        }
        // A view holds the shards which its own key space assigns here.
        let core = view.shards.get(args.shard).ok_or(ResolveError::Stopped)?;
        Ok(serve(core, decision, args.read_through).await)
    }

    /// Waits until requests are resolved with what etcd held at `revision`.
    ///
    /// # Errors
    /// If the mirror has stopped.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), ResolveError> {
        if self.shards.view().key_space.revision() >= revision {
            return Ok(());
        }
        let seen = self.mirror.wait_for(revision).await.map_err(|_| ResolveError::MirrorStopped)?.revision();
        let mut views = self.shards.subscribe();
        let is_seen = views.wait_for(|view| view.key_space.revision() >= seen).await;
        is_seen.map(drop).map_err(|_| ResolveError::MirrorStopped)
    }

    /// How far a shard of this process is; `None` if it does not run here.
    pub fn progress(&self, shard: &str) -> Option<watch::Receiver<Arc<Progress>>> {
        self.shards.view().shards.get(shard).map(|core| core.progress.subscribe())
    }

    /// How far the shards of this process are, by id.
    pub fn local_progress(&self) -> BTreeMap<Arc<str>, Arc<Progress>> {
        let view = self.shards.view();
        view.shards.iter().map(|(id, core)| (Arc::clone(id), Arc::clone(&core.progress.borrow()))).collect()
    }
}

fn resolution(decision: Decision, progress: Option<Arc<Progress>>, reader: Option<AnyReader>) -> Resolution {
    let Decision { status, header, is_local, spec } = decision;
    Resolution { status, header, is_local, spec, progress, reader }
}

/// Waits for the store, then for the offsets. A shard whose store was opened once answers with what it has read through,
/// also after it failed; one which must read further, and does not run, has stopped.
async fn serve(core: &Core, decision: Decision, read_through: Option<&BTreeMap<String, i64>>) -> Resolution {
    let stopped =
        |decision: Decision| resolution(Decision { status: Status::ShardStopped, ..decision }, None, None);
    let (mut availability, mut progress) = (core.availability.subscribe(), core.progress.subscribe());
    let none = BTreeMap::new();
    let wanted = read_through.unwrap_or(&none);
    let is_reached = |progress: &Arc<Progress>| progress.unmet(wanted).is_none();
    let has_opened =
        availability.wait_for(|now| now.was_ready || now.has_ended).await.map(|now| now.was_ready);
    if !has_opened.unwrap_or(false) {
        return stopped(decision);
    }
    let reached = tokio::select! {
        biased;
        reached = progress.wait_for(is_reached) => reached.ok().map(|progress| Arc::clone(&progress)),
        _ = availability.wait_for(|now| now.has_ended) => None,
    };
    match reached {
        Some(progress) => resolution(decision, Some(progress), core.reader.borrow().clone()),
        None => stopped(decision),
    }
}
