use std::fmt::Write as _;

use expect_test::{Expect, expect};
use fragment::spool::Outcome;
use proptest::prelude::*;
use proto::JournalName;
use proto::protocol::append_request::Suspend;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{JournalSpec, LabelSelector, journal_spec};

use super::*;

const NOW: Duration = Duration::from_secs(1_500_000_000);

/// A journal whose groups are formed and applied in one step.
struct Journal {
    spool: Spool,
    known: Known,
    terms: Terms,
    policy: RollPolicy,
}

fn new_journal(length: i64) -> Journal {
    let spec = JournalSpec {
        fragment: Some(journal_spec::Fragment { length, compression_codec: 4, ..Default::default() }),
        ..JournalSpec::default()
    };
    let journal = JournalName::parse("a/journal").unwrap();
    Journal {
        spool: Spool::new(journal),
        known: Known::default(),
        terms: Terms::of(&spec),
        policy: RollPolicy::of(&spec),
    }
}

impl Journal {
    /// Forms a group from the front of `offers`, applies it, and says what became of each offer it looked at.
    fn group(&mut self, offers: &[Offer<'_>]) -> (Vec<Admission>, Option<Group>) {
        let mut former = GroupFormer::new(&self.spool, self.known, &self.terms, &self.policy, NOW);
        let mut admissions = Vec::new();
        for offer in offers {
            admissions.push(former.offer(offer));
            if matches!(admissions.last(), Some(Admission::Deferred | Admission::Resync(_))) {
                break;
            }
        }
        let group = former.finish();
        if let Some(group) = &group {
            self.apply(group);
        }
        (admissions, group)
    }

    fn apply(&mut self, group: &Group) {
        if let Some(roll) = &group.roll {
            let registers = self.spool.registers().clone();
            let applied = self.spool.propose(roll, &registers, NOW);
            assert_eq!(applied.outcome, Outcome::Unchanged { undone: 0 });
        }
        if group.bytes > 0 {
            self.spool.content(0, &vec![7; usize::try_from(group.bytes).unwrap()]).unwrap();
            let applied = self.spool.propose(&self.spool.extended(), &group.registers, NOW);
            assert_eq!(applied.outcome, Outcome::Committed { bytes: group.bytes });
        }
        let fragment = self.spool.fragment();
        if !fragment.is_empty() {
            let begin = if self.known.is_empty() { fragment.begin } else { self.known.begin };
            self.known = Known { begin, end: fragment.end, last_mod_time: 0 };
        }
    }
}

fn registers(text: &str) -> LabelSet {
    text.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

/// An offer as text: `BYTES [at=OFFSET] [check=NAME=VALUE] [union=NAME=VALUE] [subtract=NAME=VALUE] [now|keep]`.
struct Written {
    wants: Wants,
    length: i64,
    union: Option<LabelSet>,
    subtract: Option<LabelSet>,
}

fn parse(text: &str) -> Written {
    let mut words = text.split_whitespace();
    let length = words.next().unwrap().parse().unwrap();
    let mut written = Written { wants: Wants::default(), length, union: None, subtract: None };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("at", offset) => written.wants.offset = Some(offset.parse().unwrap()),
            ("check", pair) => {
                written.wants.check_registers = Some(LabelSelector::include([pair.split_once('=').unwrap()]))
            }
            ("union", pair) => written.union = Some(registers(pair)),
            ("subtract", pair) => written.subtract = Some(registers(pair)),
            ("now", _) => written.wants.suspend = Suspend::Now,
            ("keep", _) => written.wants.suspend = Suspend::Keep,
            _ => panic!("{word}"),
        }
    }
    written
}

impl Written {
    fn offer(&self) -> Offer<'_> {
        Offer {
            wants: self.wants.clone(),
            length: self.length,
            union_registers: self.union.as_ref(),
            subtract_registers: self.subtract.as_ref(),
            roll_at_end: false,
        }
    }
}

fn describe(admission: &Admission) -> String {
    let print = |registers: &LabelSet| {
        registers
            .labels
            .iter()
            .map(|label| format!("{}={}", label.name, label.value))
            .collect::<Vec<_>>()
            .join(",")
    };
    match admission {
        Admission::Joined(Place { begin, end, registers }) => {
            format!("joined {begin}..{end} [{}]", print(registers))
        }
        Admission::Refused(status, registers) => format!("{status} [{}]", print(registers)),
        other => format!("{other:?}"),
    }
}

/// Plays a queue of offers to its end, group by group.
fn check(journal: &mut Journal, queue: &str, expected: Expect) {
    let written: Vec<_> = queue.trim().lines().map(parse).collect();
    let offers: Vec<_> = written.iter().map(Written::offer).collect();
    let lines: Vec<_> = queue.trim().lines().map(str::trim).collect();
    let (mut log, mut next) = (String::new(), 0);
    while next < offers.len() {
        let (admissions, group) = journal.group(&offers[next..]);
        let roll = group.as_ref().and_then(|group| group.roll.as_ref());
        let bytes = group.as_ref().map_or(0, |group| group.bytes);
        writeln!(
            log,
            "group of {bytes} bytes{}",
            roll.map_or(String::new(), |f| format!(", rolls to {}", f.begin))
        )
        .unwrap();
        for admission in &admissions {
            if *admission == Admission::Deferred {
                break;
            }
            writeln!(log, "  {:<30} {}", lines[next], describe(admission)).unwrap();
            next += 1;
        }
    }
    expected.assert_eq(&log);
}

#[test]
fn the_first_append_is_alone_and_the_others_commit_together() {
    check(
        &mut new_journal(1 << 20),
        "5
         10
         20
         0
         30",
        expect![[r#"
            group of 5 bytes, rolls to 0
              5                              joined 0..5 []
            group of 60 bytes, rolls to 5
              10                             joined 5..15 []
              20                             joined 15..35 []
              0                              joined 35..35 []
              30                             joined 35..65 []
        "#]],
    );
}

#[test]
fn each_append_sees_the_offsets_and_registers_that_the_ones_before_it_leave() {
    let mut journal = new_journal(1 << 20);
    journal.group(&[parse("5 union=author=one").offer()]);
    check(
        &mut journal,
        "10 at=5 check=author=one
         10 at=5
         10 at=15 union=author=two
         10 check=author=one
         10 at=25 check=author=two subtract=author=two
         10 check=author=three union=other=x",
        expect![[r#"
            group of 40 bytes, rolls to 5
              10 at=5 check=author=one       joined 5..15 [author=one]
              10 at=5                        WRONG_APPEND_OFFSET [author=one]
              10 at=15 union=author=two      joined 15..25 [author=two]
              10 check=author=one            REGISTER_MISMATCH [author=two]
              10 at=25 check=author=two subtract=author=two joined 25..35 []
              10 check=author=three union=other=x joined 35..45 [other=x]
        "#]],
    );
}

#[test]
fn a_full_fragment_closes_the_group() {
    let mut journal = new_journal(100);
    journal.group(&[parse("5").offer()]);
    check(
        &mut journal,
        "60
         60
         1
         60
         60",
        expect![[r#"
            group of 120 bytes, rolls to 5
              60                             joined 5..65 []
              60                             joined 65..125 []
            group of 121 bytes, rolls to 125
              1                              joined 125..126 []
              60                             joined 126..186 []
              60                             joined 186..246 []
        "#]],
    );
}

#[test]
fn a_group_is_bounded_in_bytes() {
    let mut journal = new_journal(1 << 30);
    journal.group(&[parse("5").offer()]);
    check(
        &mut journal,
        "4000000
         194304
         1
         9000000
         0
         1",
        expect![[r#"
            group of 4194304 bytes, rolls to 5
              4000000                        joined 5..4000005 []
              194304                         joined 4000005..4194309 []
            group of 1 bytes
              1                              joined 4194309..4194310 []
            group of 9000000 bytes
              9000000                        joined 4194310..13194310 []
            group of 1 bytes
              0                              joined 13194310..13194310 []
              1                              joined 13194310..13194311 []
        "#]],
    );
}

#[test]
fn what_needs_others_to_agree_first_waits_for_the_group_before() {
    let mut journal = new_journal(1 << 20);
    journal.group(&[parse("5").offer()]);
    journal.known.end = 100;
    check(
        &mut journal,
        "10
         10 at=100",
        expect![[r#"
            group of 0 bytes
              10                             INDEX_HAS_GREATER_OFFSET []
              10 at=100                      Resync(100)
        "#]],
    );
    let mut journal = new_journal(1 << 20);
    check(
        &mut journal,
        "10
         0 now",
        expect![[r#"
            group of 10 bytes, rolls to 0
              10                             joined 0..10 []
              0 now                          Suspend(Transition { level: Partial, offset: 10 })
        "#]],
    );
}

#[test]
fn a_suspension_that_completes_rolls_the_spool() {
    let mut journal = new_journal(1 << 20);
    journal.group(&[parse("5").offer()]);
    journal.group(&[parse("5").offer()]);
    journal.terms.level = Level::Partial;
    let wants = Wants { suspend: Suspend::Now, ..Wants::default() };
    let offer = Offer { wants, roll_at_end: true, ..Offer::default() };
    let (admissions, group) = journal.group(std::slice::from_ref(&offer));
    assert_eq!(describe(&admissions[0]), "SUSPENDED []");
    assert_eq!(group.unwrap().roll.unwrap().begin, 10);
    // Nothing to complete.
    let (admissions, group) = journal.group(&[Offer { roll_at_end: false, ..offer }]);
    assert_eq!((describe(&admissions[0]), group), ("SUSPENDED []".to_owned(), None));
}

#[test]
fn registers_beyond_what_a_spool_keeps_are_refused() {
    let mut journal = new_journal(1 << 20);
    let large: Vec<_> = (0..70).map(|n| (format!("name-{n}"), "v".repeat(1024))).collect();
    let large = LabelSet::from_pairs(large);
    let offer = Offer { length: 5, union_registers: Some(&large), ..Offer::default() };
    let (admissions, group) = journal.group(&[offer, parse("1").offer()]);
    assert!(matches!(admissions[0], Admission::RegistersTooLarge(size) if size > 70 << 10), "{admissions:?}");
    assert_eq!(group.unwrap().bytes, 1);
}

#[test]
fn an_append_that_would_end_beyond_all_offsets_is_refused_and_the_next_one_may_fit() {
    let mut journal = new_journal(100);
    let end = i64::MAX - 3;
    let empty = Fragment::empty(journal.spool.fragment().journal.clone(), end, Codec::None);
    drop(journal.spool.propose(&empty, &LabelSet::default(), NOW));
    let (admissions, group) = journal.group(&[parse("4").offer(), parse("3").offer()]);
    assert_eq!(admissions[0], Admission::OffsetsExhausted(end));
    assert!(matches!(&admissions[1], Admission::Joined(place) if place.end == i64::MAX), "{admissions:?}");
    assert_eq!(group.unwrap().bytes, 3);
}

fn offer() -> impl Strategy<Value = String> {
    let length = prop_oneof![Just(0), 1..80_i64];
    let conditions = prop_oneof![
        4 => Just(String::new()),
        1 => (0..400_i64).prop_map(|at| format!("at={at}")),
        1 => (0..3).prop_map(|value| format!("check=author={value}")),
        1 => Just("keep".to_owned()),
    ];
    (length, conditions, 0..8).prop_map(|(length, conditions, author)| match author {
        author @ 0..3 if length > 0 => format!("{length} {conditions} union=author={author}"),
        3 if length > 0 => format!("{length} {conditions} subtract=author=1"),
        _ => format!("{length} {conditions}"),
    })
}

proptest! {
    /// A queue is answered the same whether its appends commit in groups or one by one.
    #[test]
    fn groups_answer_as_single_appends_would(queue in proptest::collection::vec(offer(), 1..40)) {
        let written: Vec<_> = queue.iter().map(|text| parse(text)).collect();
        let offers: Vec<_> = written.iter().map(Written::offer).collect();
        let (mut single, mut grouped) = (new_journal(200), new_journal(200));
        let one_by_one: Vec<_> = offers.iter().map(|offer| single.group(std::slice::from_ref(offer)).0.remove(0)).collect();
        let mut together = Vec::new();
        while together.len() < offers.len() {
            let (mut admissions, _) = grouped.group(&offers[together.len()..]);
            admissions.retain(|admission| *admission != Admission::Deferred);
            prop_assert!(!admissions.is_empty(), "a group makes progress");
            together.append(&mut admissions);
        }
        prop_assert_eq!(together, one_by_one);
        prop_assert_eq!(grouped.spool.fragment(), single.spool.fragment());
        prop_assert_eq!(grouped.spool.registers(), single.spool.registers());
    }
}
