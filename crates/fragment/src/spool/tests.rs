use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use proto::protocol::JournalSpec;
use proto::protocol::journal_spec;

use super::*;

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn fragment(begin: i64, content: &str) -> Fragment {
    let sum = if content.is_empty() { Sum::ZERO } else { Sum::of(content.as_bytes()) };
    let end = begin + i64::try_from(content.len()).unwrap();
    Fragment { end, sum, ..Fragment::empty(journal(), begin, Codec::Snappy) }
}

fn registers(text: &str) -> LabelSet {
    text.split(',').filter(|label| !label.is_empty()).map(|label| (label, "")).collect()
}

fn describe(fragment: &Fragment) -> String {
    let sum =
        if fragment.sum.is_zero() { "zero".to_owned() } else { fragment.sum.to_string()[..6].to_owned() };
    format!("{}..{} {sum} {:?}", fragment.begin, fragment.end, fragment.codec)
}

/// Plays a script, one message a line, against a new spool: `content DELTA BYTES`, `propose BEGIN CONTENT REGISTERS` (with
/// `-` for nothing), `extend REGISTERS`, `undo`. The n-th line happens at second n.
fn check(script: &str, expected: Expect) {
    let mut spool = Spool::new(journal());
    let mut log = String::new();
    for (second, line) in script.trim().lines().enumerate() {
        let line = line.trim();
        let words: Vec<&str> = line.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let now = Duration::from_secs(second as u64);
        let outcome = match words[..] {
            ["content", delta, bytes] => {
                format!("{:?}", spool.content(delta.parse().unwrap(), bytes.as_bytes()))
            }
            ["propose", begin, content, regs] => {
                format!(
                    "{:?}",
                    spool.propose(&fragment(begin.parse().unwrap(), content), &registers(regs), now)
                )
            }
            ["extend", regs] => format!("{:?}", spool.propose(&spool.extended(), &registers(regs), now)),
            ["undo"] => format!("{}", spool.undo()),
            _ => panic!("{line}"),
        };
        // Fragments as a whole are too long to read.
        let outcome = match outcome.find("completed: Some") {
            Some(_) => outcome.replace(
                &outcome[outcome.find("Some(Completed").unwrap()..outcome.find("dropped").unwrap()],
                "…, ",
            ),
            None => outcome,
        };
        let regs: Vec<_> = spool.registers().labels.iter().map(|label| label.name.as_str()).collect();
        writeln!(log, "{line}\n    {outcome}").unwrap();
        writeln!(
            log,
            "    {} +{} [{}] {:?}",
            describe(spool.fragment()),
            spool.uncommitted(),
            regs.join(","),
            spool.first_append()
        )
        .unwrap();
    }
    expected.assert_eq(&log);
}

#[test]
fn content_is_committed_by_the_proposal_that_extends_over_it() {
    check(
        "
        propose 0 - -
        content 0 foo
        content 3 bar
        propose 0 foobar r1
        extend r1
        content 0 baz
        extend r1,r2
        ",
        expect![[r#"
            propose 0 - -
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                0..0 zero Snappy +0 [] None
            content 0 foo
                Ok(())
                0..0 zero Snappy +3 [] None
            content 3 bar
                Ok(())
                0..0 zero Snappy +6 [] None
            propose 0 foobar r1
                Applied { rolled: None, outcome: Committed { bytes: 6 } }
                0..6 8843d7 Snappy +0 [r1] Some(3s)
            extend r1
                Applied { rolled: None, outcome: Unchanged { undone: 0 } }
                0..6 8843d7 Snappy +0 [r1] Some(3s)
            content 0 baz
                Ok(())
                0..6 8843d7 Snappy +3 [r1] Some(3s)
            extend r1,r2
                Applied { rolled: None, outcome: Committed { bytes: 3 } }
                0..9 5f5513 Snappy +0 [r1,r2] Some(3s)
        "#]],
    );
}

#[test]
fn content_that_does_not_continue_is_an_error_and_changes_nothing() {
    check(
        "
        content 0 foo
        content 0 bar
        content 4 bar
        ",
        expect![[r#"
            content 0 foo
                Ok(())
                0..0 zero None +3 [] None
            content 0 bar
                Err(DeltaMismatch { found: 0, expected: 3 })
                0..0 zero None +3 [] None
            content 4 bar
                Err(DeltaMismatch { found: 4, expected: 3 })
                0..0 zero None +3 [] None
        "#]],
    );
}

#[test]
fn the_current_fragment_proposed_again_undoes_content() {
    check(
        "
        propose 0 - -
        content 0 foo
        extend -
        content 0 bar
        propose 0 foo -
        content 0 baz
        undo
        content 0 qux
        extend -
        ",
        expect![[r#"
            propose 0 - -
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                0..0 zero Snappy +0 [] None
            content 0 foo
                Ok(())
                0..0 zero Snappy +3 [] None
            extend -
                Applied { rolled: None, outcome: Committed { bytes: 3 } }
                0..3 0beec7 Snappy +0 [] Some(2s)
            content 0 bar
                Ok(())
                0..3 0beec7 Snappy +3 [] Some(2s)
            propose 0 foo -
                Applied { rolled: None, outcome: Unchanged { undone: 3 } }
                0..3 0beec7 Snappy +0 [] Some(2s)
            content 0 baz
                Ok(())
                0..3 0beec7 Snappy +3 [] Some(2s)
            undo
                3
                0..3 0beec7 Snappy +0 [] Some(2s)
            content 0 qux
                Ok(())
                0..3 0beec7 Snappy +3 [] Some(2s)
            extend -
                Applied { rolled: None, outcome: Committed { bytes: 3 } }
                0..6 282089 Snappy +0 [] Some(2s)
        "#]],
    );
}

#[test]
fn a_proposal_of_other_content_or_registers_is_a_mismatch() {
    check(
        "
        propose 0 - -
        content 0 foo
        propose 0 fox -
        extend r1
        propose 0 foo r2
        propose 0 fo r1
        ",
        expect![[r#"
            propose 0 - -
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                0..0 zero Snappy +0 [] None
            content 0 foo
                Ok(())
                0..0 zero Snappy +3 [] None
            propose 0 fox -
                Applied { rolled: None, outcome: Mismatch }
                0..0 zero Snappy +3 [] None
            extend r1
                Applied { rolled: None, outcome: Committed { bytes: 3 } }
                0..3 0beec7 Snappy +0 [r1] Some(3s)
            propose 0 foo r2
                Applied { rolled: None, outcome: Mismatch }
                0..3 0beec7 Snappy +0 [r1] Some(3s)
            propose 0 fo r1
                Applied { rolled: None, outcome: Mismatch }
                0..3 0beec7 Snappy +0 [r1] Some(3s)
        "#]],
    );
}

#[test]
fn a_spool_behind_the_proposal_rolls_to_its_end_and_takes_its_registers() {
    check(
        "
        propose 0 - -
        content 0 foo
        extend r1
        content 0 bar
        propose 100 - r2
        propose 100 - r3
        propose 200 more r4
        ",
        expect![[r#"
            propose 0 - -
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                0..0 zero Snappy +0 [] None
            content 0 foo
                Ok(())
                0..0 zero Snappy +3 [] None
            extend r1
                Applied { rolled: None, outcome: Committed { bytes: 3 } }
                0..3 0beec7 Snappy +0 [r1] Some(2s)
            content 0 bar
                Ok(())
                0..3 0beec7 Snappy +3 [r1] Some(2s)
            propose 100 - r2
                Applied { rolled: Some(Rolled { completed: …, dropped: 3 }), outcome: Unchanged { undone: 0 } }
                100..100 zero Snappy +0 [r2] None
            propose 100 - r3
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Mismatch }
                100..100 zero Snappy +0 [r2] None
            propose 200 more r4
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Mismatch }
                204..204 zero Snappy +0 [r4] None
        "#]],
    );
}

#[test]
fn an_empty_proposal_at_the_end_rolls_and_keeps_registers() {
    check(
        "
        propose 0 - -
        content 0 foo
        extend r1
        propose 3 - r1
        propose 3 - r1
        content 0 bar
        propose 3 - r1
        ",
        expect![[r#"
            propose 0 - -
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                0..0 zero Snappy +0 [] None
            content 0 foo
                Ok(())
                0..0 zero Snappy +3 [] None
            extend r1
                Applied { rolled: None, outcome: Committed { bytes: 3 } }
                0..3 0beec7 Snappy +0 [r1] Some(2s)
            propose 3 - r1
                Applied { rolled: Some(Rolled { completed: …, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                3..3 zero Snappy +0 [r1] None
            propose 3 - r1
                Applied { rolled: Some(Rolled { completed: None, dropped: 0 }), outcome: Unchanged { undone: 0 } }
                3..3 zero Snappy +0 [r1] None
            content 0 bar
                Ok(())
                3..3 zero Snappy +3 [r1] None
            propose 3 - r1
                Applied { rolled: Some(Rolled { completed: None, dropped: 3 }), outcome: Unchanged { undone: 0 } }
                3..3 zero Snappy +0 [r1] None
        "#]],
    );
}

#[test]
fn fragments_are_left_when_full_or_flushed_or_asked_for() {
    let spec = |length, flush| JournalSpec {
        fragment: Some(journal_spec::Fragment {
            length,
            compression_codec: Codec::Gzip.number(),
            flush_interval: Some(prost_types::Duration { seconds: flush, nanos: 5 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (empty, three) = (Spool::new(journal()), {
        let mut spool = Spool::new(journal());
        spool.content(0, b"foo").unwrap();
        drop(spool.propose(&spool.extended(), &LabelSet::default(), Duration::from_secs(119)));
        spool
    });
    let table = [
        (&empty, None, 1024, 0, 0, "0..0 zero Gzip"),
        (&empty, Some(9), 1024, 0, 0, "9..9 zero Gzip"),
        (&three, None, 3, 0, 500, "0..3 0beec7 None"),
        (&three, None, 2, 0, 500, "3..3 zero Gzip"),
        (&three, Some(0), 1024, 0, 500, "0..3 0beec7 None"),
        (&three, Some(3), 1024, 0, 500, "3..3 zero Gzip"),
        (&three, Some(2), 1024, 0, 500, "3..3 zero Gzip"),
        (&three, Some(9), 1024, 0, 500, "9..9 zero Gzip"),
        (&three, None, 1024, 60, 119, "0..3 0beec7 None"),
        (&three, None, 1024, 60, 120, "3..3 zero Gzip"),
        (&three, None, 1024, 0, 500, "0..3 0beec7 None"),
    ];
    for (spool, roll_to, length, flush, now, expected) in table {
        let policy = RollPolicy::of(&spec(length, flush));
        let proposal = next_proposal(spool, roll_to, &policy, Duration::from_secs(now));
        assert_eq!(
            describe(&proposal),
            expected,
            "roll_to {roll_to:?} length {length} flush {flush} now {now}"
        );
    }
}

#[derive(Clone, Debug)]
enum Event {
    Content(Vec<u8>),
    Commit,
    Rollback,
    Roll(i64),
    Nonsense(i64, i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 1..20).prop_map(Event::Content),
        3 => Just(Event::Commit),
        1 => Just(Event::Rollback),
        1 => (0..20_i64).prop_map(Event::Roll),
        1 => (0..100_i64, 0..100_i64).prop_map(|(a, b)| Event::Nonsense(a.min(b), a.max(b))),
    ]
}

proptest! {
    /// Whatever messages come, the committed fragment is what was committed, and two spools that see the same messages agree.
    #[test]
    fn committed_content_is_exactly_what_proposals_extended_over(events in proptest::collection::vec(event(), 0..40)) {
        let none = LabelSet::default();
        let (mut spool, mut peer) = (Spool::new(journal()), Spool::new(journal()));
        let (mut committed, mut uncommitted) = (Vec::new(), Vec::new());
        for event in events {
            let before = spool.fragment().clone();
            let proposal = match event {
                Event::Content(bytes) => {
                    let delta = spool.uncommitted();
                    spool.content(delta, &bytes).unwrap();
                    peer.content(delta, &bytes).unwrap();
                    uncommitted.extend(bytes);
                    continue;
                }
                Event::Commit => spool.extended(),
                Event::Rollback => before.clone(),
                Event::Roll(by) => Fragment::empty(journal(), before.end + by, Codec::Gzip),
                Event::Nonsense(begin, end) => Fragment { end, ..Fragment::empty(journal(), begin, Codec::None) },
            };
            let applied = spool.propose(&proposal, &none, Duration::from_secs(1));
            prop_assert_eq!(&peer.propose(&proposal, &none, Duration::from_secs(1)), &applied);
            if let Some(rolled) = &applied.rolled {
                let completed = rolled.completed.as_ref().map(|completed| completed.fragment.sum);
                prop_assert_eq!(completed, (!committed.is_empty()).then(|| Sum::of(&committed)));
                prop_assert_eq!(rolled.dropped, uncommitted.len() as i64);
                committed.clear();
                uncommitted.clear();
            }
            match applied.outcome {
                Outcome::Committed { bytes } => {
                    prop_assert_eq!(bytes, uncommitted.len() as i64);
                    committed.append(&mut uncommitted);
                }
                Outcome::Unchanged { undone } => {
                    prop_assert_eq!(undone, uncommitted.len() as i64);
                    uncommitted.clear();
                }
                Outcome::Mismatch => {}
            }
            let sum = if committed.is_empty() { Sum::ZERO } else { Sum::of(&committed) };
            prop_assert_eq!(spool.fragment().sum, sum);
            prop_assert_eq!(spool.fragment().len(), committed.len() as i64);
            prop_assert_eq!(spool.position(), (committed.len() + uncommitted.len()) as i64);
            prop_assert!(spool.fragment().end >= before.end);
        }
    }
}
