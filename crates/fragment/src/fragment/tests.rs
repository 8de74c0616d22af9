use proptest::prelude::*;
use proto::protocol::CompressionCodec;

use super::*;

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn golden(codec: Codec, path_postfix: &str) -> Fragment {
    let sum = Sum::from_hex("0102030405060708090a0b0c0d0e0f1011121314").unwrap();
    let path_postfix = PathPostfix::parse(path_postfix).unwrap();
    Fragment { end: i64::MAX, sum, path_postfix, ..Fragment::empty(journal(), 1_234_567_890, codec) }
}

#[test]
fn names_have_one_written_form() {
    let stem = "00000000499602d2-7fffffffffffffff-0102030405060708090a0b0c0d0e0f1011121314";
    let suffixes = [".raw", ".gz", ".zst", ".sz", ""];
    for (codec, suffix) in Codec::ALL.into_iter().zip(suffixes) {
        let name = format!("{stem}{suffix}");
        assert_eq!(golden(codec, "").content_name(), name);
        assert_eq!(golden(codec, "").content_path(), format!("a/journal/{name}"));
        assert_eq!(golden(codec, "date=2022-05-03/hour=04").content_path(), {
            format!("a/journal/date=2022-05-03/hour=04/{name}")
        });
        assert_eq!(Fragment::parse_content_path(&journal(), &name), Ok(golden(codec, "")));
        assert_eq!(
            Fragment::parse_content_path(&journal(), &format!("a=b/c/{name}")),
            Ok(golden(codec, "a=b/c"))
        );
    }
}

#[test]
fn names_are_read_tolerantly() {
    let sum = "0102030405060708090A0b0c0d0e0f1011121314";
    let cases = [
        (format!("499602D2-7fffffffffffffff-{sum}.GZIP"), Codec::Gzip),
        (format!("+499602d2-+7FFFFFFFFFFFFFFF-{sum}.snappy"), Codec::Snappy),
        (format!("0000000000000000000499602d2-7fffffffffffffff-{sum}.zstandard"), Codec::Zstandard),
        (format!("499602d2-7fffffffffffffff-{sum}.gzod"), Codec::GzipOffload),
        (format!("499602d2-7fffffffffffffff-{sum}"), Codec::GzipOffload),
    ];
    for (name, codec) in cases {
        assert_eq!(Fragment::parse_content_path(&journal(), &name), Ok(golden(codec, "")), "{name}");
    }
}

#[test]
fn other_names_are_refused_by_what_is_wrong() {
    let sum = "0102030405060708090a0b0c0d0e0f1011121314";
    let cases = [
        (format!("0-1-{sum}.bz2"), "has an unknown suffix \".bz2\""),
        (format!("0-{sum}.raw"), "has 2 '-'-separated fields"),
        (format!("0-1-{sum}-2.raw"), "has 4 '-'-separated fields"),
        (format!("-1-2-{sum}.raw"), "has 4 '-'-separated fields"),
        (format!("0x0-1-{sum}.raw"), "a begin that is not a 64-bit hexadecimal offset (\"0x0\")"),
        (format!("0-8000000000000000-{sum}.raw"), "an end that is not"),
        (format!("0--{sum}.raw"), "an end that is not"),
        ("0-1-0102.raw".to_owned(), "a sum that is not 40 hexadecimal digits (\"0102\")"),
        (format!("2-1-{sum}.raw"), "begins at 2, after its end 1"),
        (format!("../0-1-{sum}.raw"), "has an invalid postfix: cannot have a '..' element (..)"),
        (format!("/0-1-{sum}.raw"), ""),
        (format!("a b/0-1-{sum}.raw"), "has an invalid postfix: not a valid token (a b)"),
        (format!("a//0-1-{sum}.raw"), "has an invalid postfix: must be a clean path"),
        (".partial-0-1-00.raw".to_owned(), "has 4"),
        (String::new(), "has 1 '-'-separated fields"),
    ];
    for (path, expected) in cases {
        match Fragment::parse_content_path(&journal(), &path) {
            Err(error) => {
                let text = error.to_string().replace("has a end", "has an end");
                assert!(text.contains(expected), "{path}: {text}");
            }
            Ok(fragment) => assert_eq!((path.starts_with('/'), fragment.path_postfix.as_str()), (true, "")),
        }
    }
}

#[test]
fn wire_messages_round_trip_and_are_validated() {
    let sum = Sum::of(b"foobar");
    let fragment = Fragment { end: 6, sum, ..Fragment::empty(journal(), 0, Codec::Snappy) };
    let message = fragment.to_proto();
    assert_eq!(Fragment::try_from(&message), Ok(fragment.clone()));
    let stored = Fragment {
        backing_store: Some("s3://bucket/".into()),
        mod_time: 1234,
        path_postfix: PathPostfix::parse("a/b").unwrap(),
        ..fragment
    };
    assert_eq!(Fragment::try_from(&stored.to_proto()), Ok(stored));

    let broken = |change: fn(&mut protocol::Fragment)| {
        let mut message = message.clone();
        change(&mut message);
        Fragment::try_from(&message).unwrap_err().to_string()
    };
    assert!(broken(|m| m.journal = "/bad".to_owned()).starts_with("Journal: "));
    assert_eq!(broken(|m| m.begin = 7), "expected 0 <= Begin <= End (have 7, 6)");
    assert_eq!(broken(|m| m.begin = -1), "expected 0 <= Begin <= End (have -1, 6)");
    assert_eq!(broken(|m| m.compression_codec = 0), "CompressionCodec: invalid value (0)");
    assert_eq!(broken(|m| m.compression_codec = 99), "CompressionCodec: invalid value (99)");
    assert!(broken(|m| m.path_postfix = "../up".to_owned()).starts_with("PathPostfix: "));
    assert_eq!(message.compression_codec, i32::from(CompressionCodec::Snappy));
}

proptest! {
    #[test]
    fn parsing_never_panics_and_what_parses_names_itself(
        path in prop_oneof![any::<String>(), "[0-9a-fA-F+]{0,18}-[0-9a-f]{0,18}-[0-9a-f]{38,42}(\\.[a-zA-Z]{0,4})?"],
    ) {
        if let Ok(fragment) = Fragment::parse_content_path(&journal(), &path) {
            let rewritten = fragment.content_path();
            let relative = rewritten.strip_prefix("a/journal/").unwrap();
            prop_assert_eq!(Fragment::parse_content_path(&journal(), relative), Ok(fragment));
        }
    }
}
