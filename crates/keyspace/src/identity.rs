//! Which process answers: how this one names itself, and whether a request that was passed on is meant for it (journal
//! protocol §4.2, consumer protocol §5.4). Pure.

use proto::MemberId;
use proto::protocol::Header;
use proto::protocol::process_spec::Id;

use crate::space::{KeySpace, Schema};
use crate::txn::EtcdHeader;

/// Suffix of the id of a process whose own member key is gone.
const MISSING_SUFFIX: &str = "missing-from-Etcd";

/// A request was passed on to a process which it is not meant for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misdirected {
    /// Who passed it on belongs to another cluster.
    #[error("request Etcd ClusterId doesn't match our own ({theirs} vs {ours})")]
    ClusterId {
        /// Of the request.
        theirs: u64,
        /// Of this process.
        ours: u64,
    },
    /// Who passed it on meant another process.
    #[error("request ProcessId doesn't match our own ({theirs} vs {ours})")]
    ProcessId {
        /// Of the request.
        theirs: String,
        /// Of this process.
        ours: String,
    },
}

impl<S: Schema> KeySpace<S> {
    /// The id by which the member `me` answers: its own, or, while its key is missing, a placeholder of `missing_zone`.
    pub fn local_id(&self, me: &MemberId, missing_zone: &str) -> Id {
        if self.members().contains_key(me) {
            me.to_proto()
        } else {
            Id { zone: missing_zone.to_owned(), suffix: MISSING_SUFFIX.to_owned() }
        }
    }

    /// The header of answers of the member `me` which concern no particular item.
    pub fn unrouted_header(&self, me: &MemberId) -> Header {
        let process = self.members().contains_key(me).then_some(me);
        Header::unrouted(process, self.header().into())
    }
}

/// Checks that a request which came with `header` is meant for the process `local`, of the cluster of `etcd`.
///
/// # Errors
/// If it comes from another cluster or names another process.
pub fn check_proxy_header(header: &Header, etcd: EtcdHeader, local: &Id) -> Result<(), Misdirected> {
    let theirs = header.etcd.as_ref().map_or(0, |etcd| etcd.cluster_id);
    if theirs != etcd.cluster_id {
        return Err(Misdirected::ClusterId { theirs, ours: etcd.cluster_id });
    }
    match header.process() {
        Some(id) if id != local => Err(Misdirected::ProcessId { theirs: print(id), ours: print(local) }),
        _ => Ok(()),
    }
}

/// An id in the text format of messages.
fn print(id: &Id) -> String {
    format!("zone:{:?} suffix:{:?} ", id.zone, id.suffix)
}

#[cfg(test)]
mod tests {
    use proto::Revision;
    use proto::protocol::{Route, header};

    use super::*;

    const ETCD: EtcdHeader = EtcdHeader { cluster_id: 7, member_id: 8, revision: Revision(9), raft_term: 1 };

    fn id(suffix: &str) -> Id {
        Id { zone: "zone".to_owned(), suffix: suffix.to_owned() }
    }

    #[test]
    fn a_request_that_was_passed_on_must_mean_this_process_of_this_cluster() {
        let header = |cluster_id, id| {
            let etcd = header::Etcd { cluster_id, ..ETCD.into() };
            Header::routed(id, Route::unrouted(), etcd)
        };
        for meant in [header(7, Id::default()), header(7, id("me")), Header::unrouted(None, ETCD.into())] {
            check_proxy_header(&meant, ETCD, &id("me")).unwrap();
        }
        for (header, expected) in [
            (header(6, id("me")), "request Etcd ClusterId doesn't match our own (6 vs 7)"),
            (Header::default(), "request Etcd ClusterId doesn't match our own (0 vs 7)"),
            (
                header(7, id("peer")),
                "request ProcessId doesn't match our own (zone:\"zone\" suffix:\"peer\"  vs zone:\"zone\" suffix:\"me\" )",
            ),
        ] {
            assert_eq!(check_proxy_header(&header, ETCD, &id("me")).unwrap_err().to_string(), expected);
        }
    }
}
