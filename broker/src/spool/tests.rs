use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use expect_test::expect;
use fragment::spool::{CONTENT_AT, Head, SLOT_BYTES};
use fragment::{Codec, Fragment, Sum};
use proto::JournalName;
use proto::protocol::LabelSet;
use runtime::Entropy;

use super::image::ImageDisk;
use super::*;

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn place(disk: &ImageDisk, durability: Durability) -> SpoolPlace {
    let head = Head { journal: journal(), incarnation: 1, create_revision: 3 };
    SpoolPlace::new(Arc::new(disk.clone()), Path::new("/data"), durability, head)
}

fn adopt(disk: &ImageDisk, durability: Durability) -> Adopted {
    SpoolDir::adopt(place(disk, durability)).unwrap()
}

fn new_dir(disk: &ImageDisk) -> SpoolDir {
    adopt(disk, Durability::Process).dir
}

fn registers(value: &str) -> LabelSet {
    LabelSet::from_pairs([("author", value)])
}

fn now() -> Duration {
    Duration::from_secs(1_500_000_000)
}

fn append(dir: &mut SpoolDir, content: &'static str) {
    dir.write(&[Bytes::from_static(content.as_bytes())]).unwrap();
    dir.commit(&registers(content), now()).unwrap();
}

fn roll_to(dir: &mut SpoolDir, offset: i64) -> Option<CompletedSpool> {
    let registers = dir.spool().registers().clone();
    dir.roll(&Fragment::empty(journal(), offset, Codec::Snappy), &registers, now()).unwrap()
}

fn read(file: &LocalFile, fragment: &Fragment) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(fragment.len()).unwrap()];
    assert_eq!(file.read_at(fragment.begin, &mut content).unwrap(), content.len());
    content
}

/// Begin, content and registers of everything that was adopted.
fn describe(adopted: &Adopted) -> Vec<(i64, String, String)> {
    let text = |content| String::from_utf8(content).unwrap();
    let author = |registers: &LabelSet| registers.value_of("author").unwrap_or_default().to_owned();
    let mut all: Vec<_> = adopted
        .completed
        .iter()
        .map(|CompletedSpool { completed, file }| {
            let fragment = &completed.fragment;
            (fragment.begin, text(read(file, fragment)), author(&completed.registers))
        })
        .collect();
    let Written { fragment, registers, file } = adopted.dir.written();
    let content = file.map(|file| text(read(&file, &fragment))).unwrap_or_default();
    all.push((fragment.begin, content, author(&registers)));
    all
}

fn owned(all: &[(i64, &str, &str)]) -> Vec<(i64, String, String)> {
    all.iter().map(|(begin, content, author)| (*begin, (*content).to_owned(), (*author).to_owned())).collect()
}

#[test]
fn a_dead_brokers_spools_are_adopted_where_they_ended() {
    let disk = ImageDisk::default();
    let mut dir = new_dir(&disk);
    append(&mut dir, "one");
    let completed = roll_to(&mut dir, 3).unwrap();
    assert_eq!(completed.completed.fragment.sum, Sum::of(b"one"));
    append(&mut dir, "two");
    append(&mut dir, "three");
    // Written, and never committed.
    dir.write(&[Bytes::from_static(b"lost")]).unwrap();
    drop(dir);

    let mut adopted = adopt(&disk, Durability::Process);
    assert_eq!(describe(&adopted), owned(&[(0, "one", "one"), (3, "twothree", "three")]));
    assert_eq!(adopted.dir.spool().fragment().sum, Sum::of(b"twothree"));
    append(&mut adopted.dir, "four");
    assert_eq!(adopted.dir.spool().fragment().sum, Sum::of(b"twothreefour"));
    let again = adopt(&disk, Durability::Process);
    assert_eq!(describe(&again), owned(&[(0, "one", "one"), (3, "twothreefour", "four")]));
}

#[test]
fn end_and_registers_outlive_the_last_content() {
    let disk = ImageDisk::default();
    let mut dir = new_dir(&disk);
    append(&mut dir, "one");
    let completed = roll_to(&mut dir, 3).unwrap();
    completed.file.remove(&disk).unwrap();
    assert!(roll_to(&mut dir, 100).is_none());

    let adopted = adopt(&disk, Durability::Process);
    assert_eq!(describe(&adopted), owned(&[(100, "", "one")]));
    assert_eq!(disk.names(), ["0000000000000001.spool"]);
}

#[test]
fn a_journal_without_content_has_no_file() {
    let disk = ImageDisk::default();
    let mut dir = new_dir(&disk);
    assert!(roll_to(&mut dir, 0).is_none());
    dir.commit(&LabelSet::default(), now()).unwrap();
    assert_eq!(disk.ops(), 0);
    assert_eq!(dir.spool().fragment().codec, Codec::Snappy);
}

#[test]
fn what_cannot_be_adopted_is_set_aside_and_stops_nothing() {
    let disk = ImageDisk::default();
    let mut dir = new_dir(&disk);
    for content in ["one", "two", "three", "four", "five"] {
        append(&mut dir, content);
        let end = dir.spool().fragment().end;
        drop(roll_to(&mut dir, end));
    }
    // A torn head, a torn ring, and content that no record vouches for.
    disk.corrupt("0000000000000000.spool", 20);
    disk.corrupt("0000000000000001.spool", SLOT_BYTES + 30);
    disk.corrupt("0000000000000001.spool", SLOT_BYTES * 2 + 30);
    disk.corrupt("0000000000000002.spool", usize::try_from(CONTENT_AT).unwrap());
    let other = Head { journal: journal(), incarnation: 1, create_revision: 4 };
    let adopted = adopt(&disk, Durability::Process);
    assert_eq!(describe(&adopted), owned(&[(11, "four", "four"), (15, "five", "five"), (19, "", "five")]));
    // The empty fragment that the third file began with is verifiable, and nothing else of it.
    assert_eq!(
        disk.names(),
        [
            "0000000000000000.spool.corrupt",
            "0000000000000001.spool.corrupt",
            "0000000000000003.spool",
            "0000000000000004.spool",
            "0000000000000005.spool"
        ]
    );

    // The journal was deleted and made again: none of these are its own.
    let place = SpoolPlace::new(Arc::new(disk.clone()), Path::new("/data"), Durability::Process, other);
    let mut adopted = SpoolDir::adopt(place).unwrap();
    assert_eq!(describe(&adopted), owned(&[(0, "", "")]));
    append(&mut adopted.dir, "new");
    assert!(disk.names().contains(&"0000000000000004.spool.stale".to_owned()), "{:?}", disk.names());
    assert!(disk.names().contains(&"0000000000000006.spool".to_owned()), "numbers are not used twice");
}

#[test]
fn a_full_disk_fails_the_append_and_leaves_nothing_of_it() {
    let disk = ImageDisk::default();
    let mut dir = new_dir(&disk);
    append(&mut dir, "one");
    for space in [0, 1, 4, 5, 60] {
        disk.set_space(Some(space));
        let outcome =
            dir.write(&[Bytes::from_static(b"four")]).and_then(|()| dir.commit(&registers("four"), now()));
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("/data/spools/a%2Fjournal/0000000000000000.spool: "), "{error}");
        dir.undo();
        assert_eq!(dir.spool().fragment().end, 3);
    }
    // A roll needs a new file, and fails as a whole too.
    disk.set_space(Some(10));
    let empty = Fragment::empty(journal(), 3, Codec::Gzip);
    let error = dir.roll(&empty, &registers("one"), now()).unwrap_err().to_string();
    expect!["writing /data/spools/a%2Fjournal/0000000000000001.spool.new: no storage space"]
        .assert_eq(&error);
    assert_eq!(dir.spool().fragment().begin, 0);

    disk.set_space(None);
    append(&mut dir, "two");
    assert_eq!(describe(&adopt(&disk, Durability::Process)), owned(&[(0, "onetwo", "two")]));
}

#[test]
fn a_loss_of_power_after_a_synchronisation_leaves_what_was_on_the_disk_before() {
    let entropy = Entropy::seeded(seed());
    for revision in 1..30 {
        let disk = ImageDisk::default();
        let mut dir = new_dir(&disk);
        append(&mut dir, "one");
        // The kernel has written it in the course of time.
        dir.written().file.unwrap().sync().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        dir.mark_synced(proto::Revision(revision)).unwrap();
        let adopted = adopt(&disk.after_power_loss(disk.ops(), &entropy), Durability::Process);
        assert_eq!(describe(&adopted), owned(&[(0, "one", "one")]));
        assert_eq!(adopted.dir.synced_at().0, revision);
    }
}

#[test]
fn a_file_whose_sync_failed_is_not_synced_by_trying_again_and_is_left() {
    let disk = ImageDisk::default();
    let mut dir = adopt(&disk, Durability::Disk).dir;
    append(&mut dir, "one");
    let file = dir.written().file.unwrap();
    disk.fail_syncs(true);
    file.sync().unwrap_err();
    disk.fail_syncs(false);
    // The kernel tells of what it lost only once.
    append(&mut dir, "two");
    let again = dir.written().file.unwrap().sync().unwrap_err().to_string();
    expect!["syncing /data/spools/a%2Fjournal/0000000000000000.spool: an earlier sync of it failed"]
        .assert_eq(&again);
    assert!(dir.is_distrusted());
    // Nothing keeps the spool from leaving it.
    dir.mark_synced(proto::Revision(9)).unwrap();
    assert_eq!(roll_to(&mut dir, 6).unwrap().file.path(), file.path());
    append(&mut dir, "three");
    dir.written().file.unwrap().sync().unwrap();
    assert_eq!((dir.is_distrusted(), adopt(&disk, Durability::Disk).dir.synced_at().0), (false, 9));
}

#[test]
fn a_file_that_could_not_be_made_for_good_is_not_taken_for_the_newest() {
    let disk = ImageDisk::default();
    let mut dir = adopt(&disk, Durability::Disk).dir;
    append(&mut dir, "one");
    disk.fail_dir_syncs(true);
    let empty = Fragment::empty(journal(), 3, Codec::Snappy);
    let error = dir.roll(&empty, &registers("one"), now()).unwrap_err().to_string();
    assert!(error.starts_with("syncing ") && error.ends_with("injected sync failure"), "{error}");
    disk.fail_dir_syncs(false);
    // It has its name already, and the spool goes on in the file before it.
    append(&mut dir, "two");
    let mut adopted = adopt(&disk, Durability::Disk);
    assert_eq!(describe(&adopted), owned(&[(0, "onetwo", "two")]));
    append(&mut adopted.dir, "three");
    drop(roll_to(&mut adopted.dir, 11));
    assert_eq!(
        describe(&adopt(&disk, Durability::Disk)),
        owned(&[(0, "onetwothree", "three"), (11, "", "three")])
    );
}

#[test]
fn journals_have_directories_of_their_own() {
    let name = |journal: &str| {
        let head = Head { journal: JournalName::parse(journal).unwrap(), incarnation: 1, create_revision: 0 };
        let place = SpoolPlace::new(Arc::new(OsDisk), Path::new("/"), Durability::Process, head);
        place.dir.file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(name("a/b.c=1"), "a%2Fb.c=1");
    assert_eq!(name("a%2Fb.c"), "a%252Fb.c");
    assert_eq!(name(".hidden"), "%2Ehidden");
    let long = |end: &str| name(&format!("{}{end}", "é/".repeat(100)));
    assert_ne!(long("x"), long("y"));
    assert!(long("x").len() <= 255, "{}", long("x").len());
}

/// What the journal held after a commit, and the operation number at which that was acknowledged, if it was.
struct Committed {
    content: Vec<u8>,
    author: String,
    acknowledged: Option<usize>,
}

/// Commits that a replica writes before it waits for the sync of the first of them.
const UNSYNCED_MAX: usize = 4;

/// Runs random appends and rolls, and records what was committed, and acknowledged when. Syncs lag behind.
fn random_run(disk: &ImageDisk, durability: Durability, entropy: &Entropy) -> Vec<Committed> {
    let mut dir = adopt(disk, durability).dir;
    let mut content = Vec::new();
    let mut committed = vec![Committed { content: Vec::new(), author: String::new(), acknowledged: Some(0) }];
    let mut unsynced: Vec<LocalFile> = Vec::new();
    for step in 0..24 {
        if entropy.below(4) == 0 {
            let end = dir.spool().fragment().end;
            drop(roll_to(&mut dir, end));
            continue;
        }
        let bytes: Vec<u8> =
            (0..1 + entropy.below(1500)).map(|_| u8::try_from(entropy.below(256)).unwrap()).collect();
        if entropy.below(5) == 0 {
            disk.set_space(Some(entropy.below(bytes.len() as u64 + 200)));
        }
        let author = format!("author-{step}");
        let outcome = bytes
            .chunks(700)
            .try_for_each(|block| dir.write(&[block.to_vec().into()]))
            .and_then(|()| dir.commit(&registers(&author), now()));
        disk.set_space(None);
        let Ok(()) = outcome else {
            dir.undo();
            continue;
        };
        content.extend(bytes);
        committed.push(Committed { content: content.clone(), author, acknowledged: None });
        unsynced.extend(dir.written().file);
        if durability == Durability::Process {
            unsynced.clear();
        } else if unsynced.len() < UNSYNCED_MAX && entropy.below(3) > 0 {
            continue;
        }
        unsynced.drain(..).for_each(|file| file.sync().unwrap());
        committed.last_mut().unwrap().acknowledged = Some(disk.ops());
    }
    committed
}

/// What was acknowledged is there, and what is there was acknowledged or was being so.
fn check_image(image: &ImageDisk, durability: Durability, ops: usize, committed: &[Committed]) {
    let adopted = adopt(image, durability);
    let mut content = Vec::new();
    for CompletedSpool { completed, file } in &adopted.completed {
        assert_eq!(completed.fragment.begin, content.len() as i64, "nothing is missing before it");
        let bytes = read(file, &completed.fragment);
        assert_eq!(Sum::of(&bytes), completed.fragment.sum);
        content.extend(bytes);
    }
    let Written { fragment, registers, file } = adopted.dir.written();
    if let Some(file) = file {
        assert_eq!(fragment.begin, content.len() as i64, "nothing is missing before it");
        content.extend(read(&file, &fragment));
    }
    let author = registers.value_of("author").unwrap_or_default();
    let known = committed.iter().position(|state| state.content == content && state.author == author);
    let known = known.unwrap_or_else(|| panic!("{} bytes by {author:?} were never committed", content.len()));
    let latest = committed.iter().rposition(|state| state.acknowledged.is_some_and(|at| at <= ops)).unwrap();
    assert!(known >= latest, "commit {latest} was acknowledged, and only {known} is there");
}

fn seed() -> u64 {
    let seed = option_env!("SPOOL_SEED")
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| Entropy::system().u64());
    eprintln!("seed: {seed} (build with SPOOL_SEED to repeat)");
    seed
}

#[test]
fn every_image_that_a_killed_process_leaves_has_every_acknowledged_append() {
    let entropy = Entropy::seeded(seed());
    for _ in 0..4 {
        let disk = ImageDisk::default();
        let committed = random_run(&disk, Durability::Process, &entropy);
        for ops in 0..=disk.ops() {
            check_image(&disk.after_kill(ops, &entropy), Durability::Process, ops, &committed);
        }
    }
}

#[test]
fn every_image_that_a_loss_of_power_leaves_has_every_synced_append() {
    let entropy = Entropy::seeded(seed());
    for _ in 0..4 {
        let disk = ImageDisk::default();
        let committed = random_run(&disk, Durability::Disk, &entropy);
        for ops in 0..=disk.ops() {
            check_image(&disk.after_power_loss(ops, &entropy), Durability::Disk, ops, &committed);
        }
    }
}
