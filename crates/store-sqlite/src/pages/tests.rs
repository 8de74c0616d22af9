use super::*;
use proptest::prelude::*;

const PAGE: usize = 512;

/// Pages by their offsets.
type File = BTreeMap<u64, Box<[u8]>>;

fn page(fill: u8) -> Vec<u8> {
    vec![fill; PAGE]
}

/// A first page of a database with so many pages.
fn first(count: u32, size: u16, length: usize) -> Vec<u8> {
    let mut page = vec![0; length];
    page[16..18].copy_from_slice(&size.to_be_bytes());
    page[28..32].copy_from_slice(&count.to_be_bytes());
    page
}

fn at(number: u64) -> u64 {
    number * PAGE as u64
}

#[test]
fn pages_are_read_back_while_they_are_staged() {
    let mut pages = Pages::default();
    assert_eq!((pages.size(), pages.page_bytes(), pages.staged(0)), (0, None, None));
    pages.write(at(0), &first(3, 512, PAGE)).unwrap();
    pages.write(at(2), &page(2)).unwrap();
    pages.write(at(2), &page(3)).unwrap();
    assert_eq!(pages.staged(at(2)), Some(Some(page(3).as_slice())));
    assert_eq!(pages.staged(at(1)), None);
    assert_eq!((pages.size(), pages.page_bytes()), (at(3), Some(512)));
    let taken = pages.take();
    assert_eq!(taken.keys().copied().collect::<Vec<_>>(), [at(0), at(2)]);
    assert_eq!(pages.staged(at(2)), None);
    assert_eq!(pages.size(), at(3));
}

#[test]
fn staged_pages_are_bounded_unless_they_are_one_batch() {
    let mut pages = Pages::default();
    assert!(!pages.is_full(2 * STAGED_BYTES_MAX), "one write is not split");
    for number in 0..(STAGED_BYTES_MAX / PAGE) as u64 {
        assert!(!pages.is_full(PAGE));
        pages.write(at(number), &page(0)).unwrap();
    }
    assert!(pages.is_full(PAGE));
    assert_eq!(pages.begin_batch(), Err(PageError::Batch), "what came before is not of the batch");
    assert_eq!(pages.take().len(), STAGED_BYTES_MAX / PAGE);
    assert!(!pages.is_full(PAGE));
    pages.begin_batch().unwrap();
    assert_eq!(pages.begin_batch(), Err(PageError::Batch));
    for number in 0..1000 {
        assert!(!pages.is_full(PAGE));
        pages.write(at(number), &page(1)).unwrap();
    }
    pages.commit_batch().unwrap();
    assert_eq!(pages.commit_batch(), Err(PageError::Batch));
    assert_eq!(pages.take().len(), 1000);
}

#[test]
fn a_batch_which_is_rolled_back_leaves_nothing() {
    let mut pages = Pages::default();
    pages.begin_batch().unwrap();
    pages.write(at(7), &page(7)).unwrap();
    pages.roll_back_batch();
    assert_eq!((pages.size(), pages.page_bytes(), pages.take().len()), (0, None, 0));

    pages.write(at(0), &first(1, 512, PAGE)).unwrap();
    pages.take();
    pages.begin_batch().unwrap();
    pages.write(at(0), &first(9, 512, PAGE)).unwrap();
    pages.write(at(8), &page(8)).unwrap();
    assert_eq!(pages.size(), at(9));
    pages.roll_back_batch();
    assert_eq!((pages.size(), pages.staged(0), pages.in_batch()), (at(1), None, false));
    // Without a batch there is nothing to undo.
    pages.write(at(1), &page(1)).unwrap();
    pages.roll_back_batch();
    assert_eq!((pages.size(), pages.take().len()), (at(2), 1));
}

#[test]
fn a_page_leaves_when_the_file_is_truncated_and_not_before() {
    let stored: Vec<u64> = (0..8).map(at).collect();
    let mut pages = Pages::stored(Some(&first(8, 512, PAGE)), Some((at(7), PAGE))).unwrap();
    // A transaction which leaves three pages: until it is committed, a rollback may bring the others back.
    pages.write(at(0), &first(3, 512, PAGE)).unwrap();
    pages.write(at(5), &page(5)).unwrap();
    assert_eq!(pages.size(), at(8));
    pages.truncate(at(3), stored.iter().copied().filter(|offset| *offset >= at(3)));
    assert_eq!(pages.size(), at(3));
    let taken = pages.take();
    assert!(taken[&at(0)].is_some());
    assert_eq!(
        taken.range(at(1)..).map(|(o, p)| (*o, p.is_none())).collect::<Vec<_>>(),
        (3..8).map(|n| (at(n), true)).collect::<Vec<_>>()
    );
    // A page which comes again is not deleted.
    pages.truncate(at(2), [at(2)]);
    pages.write(at(2), &page(1)).unwrap();
    assert_eq!((pages.size(), pages.take()[&at(2)].is_some()), (at(3), true));
}

#[test]
fn an_emptied_file_may_have_pages_of_another_size() {
    let mut pages = Pages::stored(Some(&first(1, 512, PAGE)), Some((0, PAGE))).unwrap();
    assert_eq!(pages.write(0, &first(1, 1024, 1024)), Err(PageError::Size { found: 1024, expected: 512 }));
    pages.truncate(0, [0]);
    pages.write(0, &first(1, 1024, 1024)).unwrap();
    assert_eq!((pages.size(), pages.page_bytes()), (1024, Some(1024)));
}

#[test]
fn what_is_no_page_is_refused() {
    let mut pages = Pages::default();
    for length in [0, 1, 511, 513, 131_072] {
        assert_eq!(pages.write(0, &vec![0; length]), Err(PageError::NoSize(length)));
    }
    let error = pages.write(0, &first(1, 1024, PAGE)).unwrap_err();
    assert_eq!(error, PageError::Contradiction { said: 1024, found: 512 });
    assert_eq!((pages.size(), pages.page_bytes()), (0, None));
    pages.write(at(1), &page(1)).unwrap();
    assert_eq!(pages.write(at(1) + 1, &page(1)), Err(PageError::Unaligned { offset: 513, page_bytes: 512 }));
    assert_eq!(pages.write(0, &[0; 1024]), Err(PageError::Size { found: 1024, expected: 512 }));
    assert_eq!(pages.size(), at(2));
}

#[test]
fn a_stored_database_ends_behind_its_last_page_or_its_header() {
    let table = [
        (None, None, (0, None)),
        // A transaction which was not committed wrote a page, but not yet the first.
        (None, Some((at(4), PAGE)), (at(5), Some(512))),
        (Some(first(3, 512, PAGE)), Some((at(2), PAGE)), (at(3), Some(512))),
        // The last pages hold nothing, and were not written.
        (Some(first(9, 512, PAGE)), Some((at(2), PAGE)), (at(9), Some(512))),
        // Its size shrank in a transaction which was not committed.
        (Some(first(2, 512, PAGE)), Some((at(6), PAGE)), (at(7), Some(512))),
        (Some(page(0xff)), Some((0, PAGE)), (at(1), Some(512))),
    ];
    for (first, last, expected) in table {
        let pages = Pages::stored(first.as_deref(), last).unwrap();
        assert_eq!((pages.size(), pages.page_bytes()), expected);
    }
    let error = Pages::stored(Some(&first(1, 1024, 1024)), Some((at(1), PAGE))).unwrap_err();
    assert_eq!(error, PageError::Size { found: 1024, expected: 512 });
}

proptest! {
    /// Staging is invisible: the file is what a plain sparse file would be.
    #[test]
    fn pages_behave_as_a_sparse_file(steps in proptest::collection::vec((0u8..6, 0u64..12, any::<u8>()), 1..80)) {
        let mut pages = Pages::default();
        let (mut stored, mut file) = (File::new(), File::new());
        let mut before = None;
        for (step, number, fill) in steps {
            match step {
                0 | 1 => {
                    pages.write(at(number), &page(fill)).unwrap();
                    file.insert(at(number), page(fill).into());
                }
                2 if !pages.in_batch() => {
                    let beyond: Vec<u64> = stored.range(at(number)..).map(|(offset, _)| *offset).collect();
                    pages.truncate(at(number), beyond);
                    file.split_off(&at(number));
                }
                3 if !pages.in_batch() => {
                    store(&mut stored, pages.take());
                    pages.begin_batch().unwrap();
                    before = Some(file.clone());
                }
                4 if pages.in_batch() => {
                    pages.commit_batch().unwrap();
                    store(&mut stored, pages.take());
                    prop_assert_eq!(&stored, &file);
                }
                5 if pages.in_batch() => {
                    pages.roll_back_batch();
                    file = before.clone().unwrap();
                }
                _ if !pages.in_batch() => store(&mut stored, pages.take()),
                _ => {}
            }
            for number in 0..12 {
                let found = pages.staged(at(number)).unwrap_or_else(|| stored.get(&at(number)).map(|page| &**page));
                prop_assert_eq!(found, file.get(&at(number)).map(|page| &**page));
            }
        }
    }
}

fn store(stored: &mut File, taken: Staged) {
    for (offset, page) in taken {
        match page {
            Some(page) => drop(stored.insert(offset, page)),
            None => drop(stored.remove(&offset)),
        }
    }
}
