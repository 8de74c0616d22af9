//! Canonical messages: sub-messages which the protocol always writes are present, even when empty.
//!
//! Other implementations have plain values where generated types have an `Option`, and encode them always. Values that are
//! stored in etcd and responses are made canonical, so that encodings are byte for byte the same. Optional sub-messages,
//! whose presence has a meaning, are left as they are. An absent route becomes the zero message, which is no valid route: who
//! builds a header sets it (see [`crate::protocol::Route::unrouted`]).

use crate::consumer::{self, Checkpoint, ConsumerSpec, ShardSpec, checkpoint};
use crate::protocol::{self, BrokerSpec, Fragment, Header, JournalSpec, ProcessSpec, Route, journal_spec};

/// Messages which have sub-messages that are always written.
pub trait Canonical: Sized {
    /// This message, with those sub-messages present.
    #[must_use]
    fn canonical(self) -> Self;
}

/// See [`Canonical`].
pub fn canonical<M: Canonical>(message: M) -> M {
    message.canonical()
}

/// Messages without such sub-messages.
macro_rules! canonical_leaf {
    ($($message:ty),+ $(,)?) => { $(
        impl Canonical for $message {
            fn canonical(self) -> Self {
                self
            }
        }
    )+ };
}

/// `always` fields become present; `optional` and `repeated` fields are made canonical where they are.
macro_rules! canonical_message {
    ($message:ty { $(always $always:ident,)* $(optional $optional:ident,)* $(repeated $repeated:ident,)* }) => {
        impl Canonical for $message {
            #[allow(clippy::needless_update, reason = "some messages have no other field")]
            fn canonical(self) -> Self {
                Self {
                    $($always: Some(self.$always.unwrap_or_default().canonical()),)*
                    $($optional: self.$optional.map(Canonical::canonical),)*
                    $($repeated: self.$repeated.into_iter().map(Canonical::canonical).collect(),)*
                    ..self
                }
            }
        }
    };
}

canonical_leaf!(
    prost_types::Duration,
    protocol::LabelSet,
    protocol::Sha1Sum,
    protocol::process_spec::Id,
    protocol::header::Etcd,
    Route,
    consumer::ReplicaStatus,
    consumer::ProducerState,
    crate::recoverylog::FsmHints,
);

canonical_message!(protocol::LabelSelector { always include, always exclude, });
canonical_message!(JournalSpec { always labels, always fragment, });
canonical_message!(journal_spec::Fragment { always refresh_interval, always retention, always flush_interval, });
canonical_message!(ProcessSpec { always id, });
canonical_message!(BrokerSpec { always process_spec, });
canonical_message!(Fragment { always sum, });
canonical_message!(Header { always process_id, always route, always etcd, });
canonical_message!(protocol::ReadRequest { optional header, });
canonical_message!(protocol::ReadResponse { optional header, optional fragment, });
canonical_message!(protocol::AppendRequest { optional header, optional check_registers, });
canonical_message!(protocol::AppendResponse { always header, optional commit, });
canonical_message!(protocol::ReplicateRequest { optional header, optional proposal, });
canonical_message!(protocol::ReplicateResponse { optional header, optional fragment, });
canonical_message!(protocol::ListRequest { always selector, optional watch_resume, });
canonical_message!(protocol::ListResponse { always header, repeated journals, });
canonical_message!(protocol::list_response::Journal { always spec, always route, });
canonical_message!(protocol::ApplyRequest { repeated changes, });
canonical_message!(protocol::apply_request::Change { optional upsert, });
canonical_message!(protocol::ApplyResponse { always header, });
canonical_message!(protocol::FragmentsRequest { optional header, });
canonical_message!(protocol::FragmentsResponse { always header, repeated fragments, });
canonical_message!(protocol::fragments_response::Fragment { always spec, });
canonical_message!(protocol::FragmentStoreHealthResponse { always header, });

canonical_message!(ShardSpec { always max_txn_duration, always min_txn_duration, always labels, });
canonical_message!(ConsumerSpec { always process_spec, });
canonical_message!(checkpoint::ProducerEntry { always state, });
canonical_message!(checkpoint::Source { repeated producers, });
canonical_message!(consumer::ListRequest { always selector, });
canonical_message!(consumer::ListResponse { always header, repeated shards, });
canonical_message!(consumer::list_response::Shard { always spec, always route, });
canonical_message!(consumer::ApplyRequest { repeated changes, });
canonical_message!(consumer::apply_request::Change { optional upsert, });
canonical_message!(consumer::ApplyResponse { always header, });
canonical_message!(consumer::StatRequest { optional header, });
canonical_message!(consumer::StatResponse { always header, });
canonical_message!(consumer::get_hints_response::ResponseHints { optional hints, });
canonical_message!(consumer::GetHintsResponse { always header, always primary_hints, repeated backup_hints, });

impl Canonical for Checkpoint {
    fn canonical(self) -> Self {
        let sources =
            self.sources.into_iter().map(|(journal, source)| (journal, source.canonical())).collect();
        Checkpoint { sources, ..self }
    }
}
