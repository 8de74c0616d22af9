//! Floors: where the journals go on that a leaving broker could not hand over.
//!
//! A broker which is assigned such a journal next, and has no replica to synchronise with, must not begin at offset zero, nor
//! wait for an operator because the store tells of more than its spool does. So the broker that leaves records the journal's
//! end as the offset at which a suspended journal resumes (journal protocol §5.4), which every broker rolls its spool to. It
//! does so only for journals of which it is the primary and, by the route it has published, the only replica that has anything,
//! and after it has closed them: their end is final then. What is not stored yet is a gap below the floor until this broker's
//! data directory is served again.

use futures::StreamExt;
use keyspace::{EtcdError, Txn};
use proto::protocol::journal_spec::suspend::Level;
use proto::{JournalName, MemberId};

use crate::append::{Terms, Transition, change_suspension, key_in};
use crate::key_space::Mirror;
use crate::resolution::Facts;

/// Transactions under way at a time.
const TXNS_AT_ONCE_MAX: usize = 16;
/// Attempts for one journal, each of which sees what a faster transaction of somebody else has done.
const ATTEMPTS_MAX: usize = 3;

/// Sets the floor of each journal that only `me` has content of to the offset that comes with it. Returns for how many it did.
///
/// # Errors
/// The last failure of etcd; the other floors are set nevertheless.
pub(super) async fn raise(
    mirror: &Mirror,
    me: &MemberId,
    ends: Vec<(JournalName, i64)>,
) -> Result<usize, EtcdError> {
    let one = |(journal, end): (JournalName, i64)| async move { raise_one(mirror, me, &journal, end).await };
    let outcomes = futures::stream::iter(ends).map(one).buffer_unordered(TXNS_AT_ONCE_MAX);
    outcomes
        .fold(Ok(0), |sum, outcome| async move {
            match (sum, outcome) {
                (Ok(sum), Ok(raised)) => Ok(sum + usize::from(raised)),
                (Err(error), _) | (_, Err(error)) => Err(error),
            }
        })
        .await
}

async fn raise_one(
    mirror: &Mirror,
    me: &MemberId,
    journal: &JournalName,
    end: i64,
) -> Result<bool, EtcdError> {
    for _ in 0..ATTEMPTS_MAX {
        let facts = Facts::gather(&mirror.snapshot(), me, Some(journal));
        let Some(txn) = floor(&facts, me, mirror.item_key(journal.as_str()), end, key_in(mirror)) else {
            return Ok(false);
        };
        let outcome = mirror.etcd().txn(txn).await?;
        if outcome.succeeded {
            return Ok(true);
        }
        if mirror.wait_for(outcome.header.revision).await.is_err() {
            break;
        }
    }
    Ok(false)
}

/// The transaction which sets the journal's floor to `end`; `None` if others have its content, or it has that floor.
fn floor(
    facts: &Facts,
    me: &MemberId,
    item_key: String,
    end: i64,
    key: impl Fn(&crate::resolution::Assigned) -> String,
) -> Option<Txn> {
    let item = facts.item.as_ref()?;
    let mine = facts.assignments.iter().find(|assigned| assigned.key.member == *me)?;
    // Others which are assigned have not synchronised yet: the route is published once they have.
    let is_mine_alone = mine.key.slot == 0 && mine.route.members == [me.to_proto()];
    let terms = Terms::of(&item.spec);
    if !is_mine_alone || terms.level == Level::Full || terms.suspend_offset >= end {
        return None;
    }
    let transition = Transition { level: terms.level, offset: end };
    Some(change_suspension(item_key, item, transition, &facts.assignments, key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keyspace::{AssignmentKey, Op};
    use prost::Message;
    use proto::Revision;
    use proto::protocol::{JournalSpec, Route};

    use super::*;
    use crate::fixtures::{journal_spec, member};
    use crate::resolution::{Assigned, Item};

    /// A journal which is assigned to these members in order of their slots, and whose primary has published this route.
    fn facts(members: &[&str], published: &[&str], offset: Option<i64>) -> Facts {
        let mut spec = journal_spec("a/journal");
        spec.suspend = offset.map(|offset| proto::protocol::journal_spec::Suspend { level: 0, offset });
        let members_of = |members: &[&str]| members.iter().map(|m| member(m).to_proto()).collect();
        let assigned = |(slot, suffix): (usize, &&str)| Assigned {
            key: AssignmentKey { item: "a/journal".into(), member: member(suffix), slot: slot as u32 },
            route: Arc::new(Route { members: members_of(published), ..Route::unrouted() }),
            mod_revision: Revision(5),
        };
        Facts {
            local: member("me").to_proto(),
            item: Some(Item {
                spec: Arc::new(spec),
                create_revision: Revision(3),
                mod_revision: Revision(4),
            }),
            assignments: members.iter().enumerate().map(assigned).collect(),
            route: Route::unrouted(),
            etcd: Default::default(),
        }
    }

    fn floor_of(facts: &Facts, end: i64) -> Option<i64> {
        let txn = floor(facts, &member("me"), "item".to_owned(), end, |_| "assignment".to_owned())?;
        assert_eq!(txn.compares.len(), 1 + facts.assignments.len(), "nothing has changed");
        let Op::Put { value, .. } = &txn.then[0] else { panic!("{txn:?}") };
        Some(JournalSpec::decode(&value[..]).unwrap().suspend.unwrap().offset)
    }

    #[test]
    fn only_the_last_holder_sets_a_floor_and_never_lowers_it() {
        let alone = |offset| facts(&["me"], &["me"], offset);
        assert_eq!(floor_of(&alone(None), 10), Some(10));
        assert_eq!(floor_of(&alone(Some(9)), 10), Some(10));
        assert_eq!(floor_of(&alone(Some(10)), 10), None);
        assert_eq!(floor_of(&alone(None), 0), None);
        assert_eq!(floor_of(&Facts { item: None, ..alone(None) }, 10), None);
        assert_eq!(floor_of(&facts(&["me", "peer"], &["me"], None), 10), Some(10), "the peer has nothing");
        assert_eq!(floor_of(&facts(&["me", "peer"], &["me", "peer"], None), 10), None);
        assert_eq!(floor_of(&facts(&["peer", "me"], &["me"], None), 10), None, "it is no primary");
        assert_eq!(floor_of(&facts(&["me"], &[], None), 10), None, "nothing was ever agreed upon");
        assert_eq!(floor_of(&facts(&["peer"], &["peer"], None), 10), None);
    }
}
