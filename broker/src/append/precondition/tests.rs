use proto::protocol::journal_spec;

use super::*;

const NOW: i64 = 1_500_000_000;

fn terms() -> Terms {
    Terms { writable: true, level: Level::None, suspend_offset: 0, flushed_age: 60 }
}

/// A journal with a spool of 100..110 after stored fragments of 0..100.
struct Journal {
    spool: (i64, i64),
    known: Known,
    registers: LabelSet,
    terms: Terms,
}

impl Default for Journal {
    fn default() -> Journal {
        let known = Known { begin: 0, end: 110, last_mod_time: 0 };
        Journal { spool: (100, 110), known, registers: LabelSet::default(), terms: terms() }
    }
}

fn verdict(journal: &Journal, wants: &Wants) -> Verdict {
    let situation = Situation {
        spool_begin: journal.spool.0,
        spool_end: journal.spool.1,
        registers: &journal.registers,
        known: journal.known,
        terms: &journal.terms,
        now_unix: NOW,
    };
    judge(wants, &situation)
}

fn at(offset: i64) -> Wants {
    Wants { offset: Some(offset), ..Wants::default() }
}

fn checking(value: &str) -> Wants {
    let check_registers = Some(LabelSelector::include([("author", value)]));
    Wants { check_registers, ..Wants::default() }
}

const PROCEED: Verdict = Verdict::Proceed { roll_to: None };

#[test]
fn registers_must_match_unless_they_are_empty() {
    let mut journal = Journal::default();
    assert_eq!(verdict(&journal, &checking("me")), PROCEED);
    journal.registers = LabelSet::from_pairs([("author", "me")]);
    assert_eq!(verdict(&journal, &checking("me")), PROCEED);
    assert_eq!(verdict(&journal, &checking("you")), Verdict::Refuse(Status::RegisterMismatch));
    // Before anything else.
    let both = Wants { offset: Some(5), ..checking("you") };
    assert_eq!(verdict(&journal, &both), Verdict::Refuse(Status::RegisterMismatch));
}

#[test]
fn an_offset_must_be_the_journals_end() {
    let journal = Journal::default();
    assert_eq!(verdict(&journal, &at(110)), PROCEED);
    assert_eq!(verdict(&journal, &at(109)), Verdict::Refuse(Status::WrongAppendOffset));
    assert_eq!(verdict(&journal, &at(111)), Verdict::Refuse(Status::WrongAppendOffset));
}

#[test]
fn an_index_beyond_the_spool_refuses_appends_until_the_offset_is_given() {
    let known = Known { begin: 0, end: 500, last_mod_time: 9 };
    let mut journal = Journal { spool: (0, 0), known, ..Journal::default() };
    assert_eq!(verdict(&journal, &Wants::default()), Verdict::Refuse(Status::IndexHasGreaterOffset));
    assert_eq!(verdict(&journal, &at(500)), Verdict::Resync { roll_to: 500 });
    assert_eq!(verdict(&journal, &at(400)), Verdict::Refuse(Status::WrongAppendOffset));
    journal.terms.writable = false;
    let barrier = verdict(&journal, &Wants::default());
    assert_eq!(barrier, Verdict::Proceed { roll_to: Some(0) }, "a mirror of a store takes barriers");
}

#[test]
fn a_resumed_journal_begins_at_or_after_its_suspension() {
    let mut journal = Journal::default();
    journal.terms.suspend_offset = 111;
    assert_eq!(verdict(&journal, &Wants::default()), Verdict::Resync { roll_to: 111 });
    journal.terms.suspend_offset = 110;
    assert_eq!(verdict(&journal, &Wants::default()), PROCEED);
}

#[test]
fn the_first_append_gets_a_fragment_of_its_own() {
    let known = Known { begin: 0, end: 5, last_mod_time: 0 };
    let mut journal = Journal { spool: (0, 5), known, ..Journal::default() };
    assert_eq!(verdict(&journal, &Wants::default()), Verdict::Proceed { roll_to: Some(5) });
    journal.spool = (5, 9);
    assert_eq!(verdict(&journal, &Wants::default()), PROCEED);
    // All older fragments were removed from the store.
    journal.known.begin = 5;
    assert_eq!(verdict(&journal, &Wants::default()), Verdict::Proceed { roll_to: Some(9) });
}

#[test]
fn suspension_modes_follow_their_table() {
    use Level::{Full, None as Awake, Partial};
    use Suspend::{IfFlushed, Keep, NoResume, Now, Resume};
    let dirty = Known { begin: 0, end: 110, last_mod_time: 0 };
    let recent = Known { last_mod_time: NOW - 59, ..dirty };
    let clean = Known { last_mod_time: NOW - 60, ..dirty };
    let empty = Known { begin: 0, end: 0, last_mod_time: 0 };
    let to = |level| Verdict::Suspend(Transition { level, offset: 110 });
    let suspended = Verdict::Refuse(Status::Suspended);
    let table = [
        (Awake, Resume, dirty, PROCEED),
        (Awake, NoResume, dirty, PROCEED),
        (Awake, Keep, clean, PROCEED),
        (Awake, IfFlushed, dirty, PROCEED),
        (Awake, IfFlushed, recent, PROCEED),
        (Awake, IfFlushed, clean, to(Partial)),
        (Awake, IfFlushed, empty, to(Full)),
        (Awake, Now, dirty, to(Partial)),
        (Awake, Now, empty, to(Full)),
        (Partial, Resume, clean, to(Awake)),
        (Partial, NoResume, clean, suspended.clone()),
        (Partial, IfFlushed, clean, Verdict::DrainSuspended),
        (Partial, IfFlushed, empty, to(Full)),
        (Partial, Now, dirty, Verdict::DrainSuspended),
        (Partial, Now, empty, to(Full)),
        (Partial, Keep, clean, PROCEED),
        (Full, NoResume, clean, suspended.clone()),
        (Full, IfFlushed, clean, suspended.clone()),
        (Full, Now, clean, suspended.clone()),
        (Full, Keep, clean, suspended),
        (Full, Resume, clean, Verdict::Suspend(Transition { level: Awake, offset: 77 })),
    ];
    for (level, suspend, known, expected) in table {
        let suspend_offset = if level == Full { 77 } else { 0 };
        let journal =
            Journal { known, terms: Terms { level, suspend_offset, ..terms() }, ..Journal::default() };
        let wants = Wants { suspend, ..Wants::default() };
        assert_eq!(verdict(&journal, &wants), expected, "{level:?} {suspend:?} {known:?}");
    }
}

#[test]
fn content_is_for_appends_and_not_for_suspensions() {
    let may: Vec<_> = [Suspend::Resume, Suspend::NoResume, Suspend::IfFlushed, Suspend::Now, Suspend::Keep]
        .into_iter()
        .filter(|mode| may_carry_content(*mode))
        .collect();
    assert_eq!(may, [Suspend::Resume, Suspend::NoResume]);
}

#[test]
fn registers_are_subtracted_from_before_they_are_added_to() {
    let set = |pairs: &[(&str, &str)]| LabelSet::from_pairs(pairs.iter().copied());
    let before = set(&[("a", "1"), ("b", "2")]);
    let after =
        next_registers(&before, Some(&set(&[("b", "3"), ("c", "4")])), Some(&set(&[("a", "1"), ("b", "2")])));
    assert_eq!(after, set(&[("b", "3"), ("c", "4")]));
    let kept = next_registers(&before, Some(&set(&[("b", "3")])), None);
    assert_eq!(kept, set(&[("a", "1"), ("b", "3")]), "values of the union win");
    assert_eq!(next_registers(&before, None, None), before);
}

#[test]
fn terms_come_from_the_specification() {
    let spec = JournalSpec {
        flags: journal_spec::Flag::ORdonly as u32,
        suspend: Some(journal_spec::Suspend { level: Level::Partial.into(), offset: 7 }),
        fragment: Some(journal_spec::Fragment {
            flush_interval: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let expected = Terms { writable: false, level: Level::Partial, suspend_offset: 7, flushed_age: 90 };
    assert_eq!(Terms::of(&spec), expected);
    assert_eq!(Terms::of(&JournalSpec::default()), Terms { flushed_age: FLUSHED_AGE_SECONDS, ..terms() });
}
