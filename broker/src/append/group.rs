//! The group former: which of the queued appends commit together, and where each of them lands.
//!
//! Appends are offered in order. Each one is judged against the journal as the appends before it leave it (its end, its
//! registers), so that a group answers exactly as the same appends would one by one. What one append on its own would
//! begin by rolling the spool can only be the first of a group; a group which holds content is closed before such an
//! append, before one that needs the replicas to agree first, and at [`GROUP_BYTES_MAX`]. One proposal then commits the
//! whole group, and each append is answered with its own span.
//!
//! The sums of the appends are not known here: each append's handler hashes its content on another thread, while the group is
//! written and hashed into the fragment.

use std::sync::Arc;
use std::time::Duration;

use fragment::spool::{REGISTERS_BYTES_MAX, RollPolicy, Spool, next_proposal};
use fragment::{Codec, Fragment};
use prost::Message;
use proto::protocol::{LabelSet, Status};

use super::precondition::{Known, Situation, Terms, Transition, Verdict, Wants, judge, next_registers};

/// A group that holds content is closed before it grows beyond this many bytes. An append larger than this is a group
/// of its own.
pub const GROUP_BYTES_MAX: i64 = 4 << 20;

/// An append, as far as its place in a group depends on it.
#[derive(Clone, Debug, Default)]
pub struct Offer<'a> {
    /// Its preconditions.
    pub wants: Wants,
    /// Bytes of content.
    pub length: i64,
    /// Labels to add to the registers.
    pub union_registers: Option<&'a LabelSet>,
    /// Labels to take from the registers first.
    pub subtract_registers: Option<&'a LabelSet>,
    /// Asks for a roll at the spool's end before anything is appended: the append completes a suspension.
    pub roll_at_end: bool,
}

/// Where an append lands.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Offset of its first byte.
    pub begin: i64,
    /// Offset after its last byte.
    pub end: i64,
    /// The registers after it.
    pub registers: Arc<LabelSet>,
}

/// What became of an offered append.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// It is part of the group.
    Joined(Place),
    /// It is not, and is answered with this status once the group is settled. The registers are those it was judged by.
    Refused(Status, Arc<LabelSet>),
    /// The append's registers cannot be kept: their encoded size in bytes.
    RegistersTooLarge(usize),
    /// It would end beyond the largest offset. The journal's end.
    OffsetsExhausted(i64),
    /// The group is closed; this append is to be offered to the next one.
    Deferred,
    /// The group is empty; the replicas must agree on an empty fragment here before this append is offered again.
    Resync(i64),
    /// It is not part of the group: the journal's suspension must change first.
    Suspend(Transition),
}

/// The group in the making.
#[derive(Debug)]
pub struct GroupFormer<'a> {
    spool: &'a Spool,
    terms: &'a Terms,
    policy: &'a RollPolicy,
    now: Duration,
    known: Known,
    proposal: Option<Fragment>,
    /// Span of the fragment after the group so far.
    begin: i64,
    end: i64,
    registers: Arc<LabelSet>,
    bytes: i64,
}

/// A formed group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// An empty fragment which the spool rolls to before the group's content, if it must.
    pub roll: Option<Fragment>,
    /// Bytes of content.
    pub bytes: i64,
    /// The registers after the group.
    pub registers: Arc<LabelSet>,
}

impl<'a> GroupFormer<'a> {
    /// A group which follows the last commit of `spool`. `known` spans all fragments of the journal, `now` is the time since
    /// the Unix epoch.
    ///
    /// # Panics
    /// If the spool has uncommitted bytes: groups do not overlap.
    pub fn new(
        spool: &'a Spool,
        known: Known,
        terms: &'a Terms,
        policy: &'a RollPolicy,
        now: Duration,
    ) -> GroupFormer<'a> {
        assert_eq!(spool.uncommitted(), 0, "the group before is committed or undone");
        let Fragment { begin, end, .. } = *spool.fragment();
        let registers = Arc::new(spool.registers().clone());
        GroupFormer { spool, terms, policy, now, known, proposal: None, begin, end, registers, bytes: 0 }
    }

    /// Offers the next append of the queue.
    pub fn offer(&mut self, offer: &Offer<'_>) -> Admission {
        let verdict = judge(&offer.wants, &self.situation());
        let roll_to = match verdict {
            Verdict::Proceed { roll_to } => roll_to,
            Verdict::Resync { .. } if self.proposal.is_some() => return Admission::Deferred,
            Verdict::Resync { roll_to } => return Admission::Resync(roll_to),
            Verdict::Suspend(transition) => return Admission::Suspend(transition),
            Verdict::DrainSuspended if offer.roll_at_end => {
                return match self.begin_with(Some(self.end)) {
                    Ok(()) => Admission::Refused(Status::Suspended, Arc::clone(&self.registers)),
                    Err(Closed) => Admission::Deferred,
                };
            }
            Verdict::DrainSuspended => return self.refused(Status::Suspended),
            Verdict::Refuse(status) => return self.refused(status),
        };
        let registers = self.registers_after(offer);
        if let Some(size) =
            registers.as_ref().map(|set| set.encoded_len()).filter(|size| *size > REGISTERS_BYTES_MAX)
        {
            return Admission::RegistersTooLarge(size);
        }
        if self.end.checked_add(offer.length).is_none() {
            return Admission::OffsetsExhausted(self.end);
        }
        if self.begin_with(roll_to) == Err(Closed) {
            return Admission::Deferred;
        }
        if self.bytes > 0 && self.bytes.saturating_add(offer.length) > GROUP_BYTES_MAX {
            return Admission::Deferred;
        }
        Admission::Joined(self.join(offer.length, registers))
    }

    /// Codec of the fragment that the group is part of.
    pub fn codec(&self) -> Codec {
        self.proposal.as_ref().unwrap_or(self.spool.fragment()).codec
    }

    /// The group, or `None` if nothing joined it and the spool need not roll.
    pub fn finish(self) -> Option<Group> {
        let proposal = self.proposal?;
        let roll = (proposal != *self.spool.fragment()).then_some(proposal);
        Some(Group { roll, bytes: self.bytes, registers: self.registers })
    }

    /// Makes `roll_to` true of the group: by its opening proposal if nothing has joined yet.
    fn begin_with(&mut self, roll_to: Option<i64>) -> Result<(), Closed> {
        if self.proposal.is_none() {
            let proposal = next_proposal(self.spool, roll_to, self.policy, self.now);
            (self.begin, self.end) = (proposal.begin, proposal.end);
            self.proposal = Some(proposal);
            return Ok(());
        }
        // An empty fragment is where a roll would lead.
        let rolls = self.begin != self.end
            && (self.policy.is_full(self.end - self.begin)
                || roll_to.is_some_and(|offset| offset != self.begin));
        if rolls { Err(Closed) } else { Ok(()) }
    }

    fn join(&mut self, length: i64, registers: Option<LabelSet>) -> Place {
        if let Some(registers) = registers {
            self.registers = Arc::new(registers);
        }
        let begin = self.end;
        self.end += length;
        self.bytes += length;
        Place { begin, end: self.end, registers: Arc::clone(&self.registers) }
    }

    /// The registers that the append leaves, if it touches them.
    fn registers_after(&self, offer: &Offer<'_>) -> Option<LabelSet> {
        if offer.union_registers.is_none() && offer.subtract_registers.is_none() {
            return None;
        }
        Some(next_registers(&self.registers, offer.union_registers, offer.subtract_registers))
    }

    fn refused(&self, status: Status) -> Admission {
        Admission::Refused(status, Arc::clone(&self.registers))
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            spool_begin: self.begin,
            spool_end: self.end,
            registers: &self.registers,
            known: self.known_with_group(),
            terms: self.terms,
            now_unix: i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// The known fragments, and the group's own content.
    fn known_with_group(&self) -> Known {
        if self.bytes == 0 {
            return self.known;
        }
        let begin = if self.known.is_empty() { self.begin } else { self.known.begin.min(self.begin) };
        Known { begin, end: self.known.end.max(self.end), last_mod_time: 0 }
    }
}

/// The group cannot take an append which begins with a roll.
#[derive(Debug, PartialEq)]
struct Closed;

#[cfg(test)]
mod tests;
