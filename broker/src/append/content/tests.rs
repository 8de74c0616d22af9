use super::*;
use crate::spool::OsDisk;

fn space(dir: &Path, memory_max: usize) -> ContentSpace {
    ContentSpace::new(Arc::new(OsDisk), dir, memory_max)
}

fn add(buffer: &mut ContentBuffer, chunk: Vec<u8>) {
    if let Err(chunk) = buffer.push(chunk.into()) {
        buffer.spill(&chunk).unwrap();
    }
}

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    content
        .for_each(|block| {
            bytes.extend_from_slice(&block);
            Ok::<_, io::Error>(())
        })
        .unwrap();
    bytes
}

#[test]
fn content_is_the_same_in_memory_and_spilled() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    let (mut roomy, mut tight) = (space(dir.path(), 1 << 20).gather(), space(dir.path(), 100).gather());
    for n in 0..50u8 {
        let chunk = vec![n; usize::from(n) * 7];
        expected.extend_from_slice(&chunk);
        add(&mut roomy, chunk.clone());
        add(&mut tight, chunk);
    }
    let (roomy, tight) = (roomy.finish(), tight.finish());
    assert!(roomy.in_memory().is_some() && tight.in_memory().is_none());
    for content in [roomy, tight] {
        assert_eq!(content.length(), i64::try_from(expected.len()).unwrap());
        assert_eq!(bytes_of(&content), expected);
        assert_eq!(content.sum(), Sum::of(&expected));
    }
    let left = std::fs::read_dir(dir.path().join(SPILL_DIR)).unwrap().count();
    assert_eq!(left, 0, "spilled files have no name");
}

#[test]
fn memory_is_given_back_when_content_is_dropped_or_spilled() {
    let dir = tempfile::tempdir().unwrap();
    let space = space(dir.path(), 100);
    let (mut first, mut second) = (space.gather(), space.gather());
    first.push(vec![1; 80].into()).unwrap();
    let refused = second.push(vec![2; 80].into()).unwrap_err();
    second.spill(&refused).unwrap();
    let first = first.finish();
    assert!(space.gather().push(vec![3; 80].into()).is_err());
    drop(first);
    let mut third = space.gather();
    third.push(vec![3; 80].into()).unwrap();
    third.spill(&vec![4; 80].into()).unwrap();
    space.gather().push(vec![5; 80].into()).unwrap();
    assert_eq!(third.finish().sum(), Sum::of(&[vec![3; 80], vec![4; 80]].concat()));
}

#[test]
fn one_append_takes_a_bounded_part_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = space(dir.path(), usize::MAX >> 4).gather();
    buffer.push(vec![0; APPEND_MEMORY_MAX].into()).unwrap();
    assert!(buffer.push(vec![0; 1].into()).is_err());
}

#[test]
fn a_disk_that_cannot_take_a_spill_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let mut buffer = space(&file, 0).gather();
    let error = buffer.spill(&Bytes::from_static(b"x")).unwrap_err().to_string();
    assert!(error.starts_with("spilling append content into ") && error.contains("/file/spill: "), "{error}");
}
