//! No bytes from outside can panic decoding, validation, canonical encoding or the helpers.

use super::*;
use crate::protocol::*;
use crate::shard_spec::valid_shard_spec;
use crate::{Canonical, StoreUrl, consumer, endpoint, recoverylog};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

/// Decodes as `M`; what decodes is validated, and encodes to what decodes to the same.
fn exercise<M: Message + Default + Canonical + Validate + PartialEq + std::fmt::Debug>(bytes: &Bytes) {
    if let Ok(message) = M::decode(bytes.clone()) {
        let _ = message.validate();
        let message = message.canonical();
        let _ = message.validate();
        let encoded = message.encode_to_vec();
        assert_eq!(M::decode(encoded.as_slice()).as_ref(), Ok(&message));
    }
}

fn exercise_all(bytes: &Bytes) {
    exercise::<LabelSelector>(bytes);
    exercise::<BrokerSpec>(bytes);
    exercise::<Fragment>(bytes);
    exercise::<Header>(bytes);
    exercise::<ReadRequest>(bytes);
    exercise::<ReadResponse>(bytes);
    exercise::<AppendRequest>(bytes);
    exercise::<AppendResponse>(bytes);
    exercise::<ReplicateRequest>(bytes);
    exercise::<ReplicateResponse>(bytes);
    exercise::<ListRequest>(bytes);
    exercise::<ListResponse>(bytes);
    exercise::<ApplyRequest>(bytes);
    exercise::<FragmentsRequest>(bytes);
    exercise::<FragmentsResponse>(bytes);
    exercise::<consumer::ConsumerSpec>(bytes);
    exercise::<consumer::ReplicaStatus>(bytes);
    exercise::<consumer::Checkpoint>(bytes);
    exercise::<consumer::ListResponse>(bytes);
    exercise::<consumer::ApplyRequest>(bytes);
    exercise::<consumer::StatRequest>(bytes);
    exercise::<consumer::GetHintsResponse>(bytes);
    exercise::<recoverylog::FsmHints>(bytes);
    if let Ok(spec) = JournalSpec::decode(bytes.clone()) {
        exercise_journal_spec(&spec);
    }
    if let Ok(spec) = consumer::ShardSpec::decode(bytes.clone()) {
        exercise_shard_spec(&spec);
    }
    if let Ok(request) = FragmentStoreHealthRequest::decode(bytes.clone()) {
        let _ = request.validate();
    }
}

fn exercise_journal_spec(spec: &JournalSpec) {
    if spec.validate().is_ok() {
        assert_eq!(spec.validate_stored(), Ok(()), "the strict rules must imply the lax ones");
        assert!(spec.journal_name().is_ok());
    }
    let _ = (spec.labels_with_name(), spec.refresh_interval(), spec.flush_interval(), spec.retention());
    assert!(spec.desired_replication(9) <= 9);
    assert!(LabelSelector::everything().matches(&spec.labels_with_name()));
}

fn exercise_shard_spec(spec: &consumer::ShardSpec) {
    if spec.validate().is_ok() {
        assert_eq!(spec.validate_stored(), Ok(()), "the strict rules must imply the lax ones");
        assert_eq!(spec.recovery_log().is_some(), !spec.recovery_log_prefix.is_empty());
    }
    let _ = (spec.labels_with_id(), spec.hint_backup_keys(), spec.max_txn(), spec.desired_replication(3));
}

/// Encodings of valid messages, to mutate.
fn samples() -> Vec<Vec<u8>> {
    let append = AppendResponse {
        header: Some(valid_header()),
        commit: Some(valid_fragment()),
        registers: Some(LabelSet::from_pairs([("aa", "bb")])),
        ..AppendResponse::default()
    };
    let selector: LabelSelector = "a1=b, c2 notin (d,e)".parse().unwrap();
    vec![
        valid_journal_spec().canonical().encode_to_vec(),
        valid_shard_spec().canonical().encode_to_vec(),
        valid_header().encode_to_vec(),
        append.encode_to_vec(),
        ListRequest { selector: Some(selector), watch: true, watch_resume: Some(valid_header()) }
            .encode_to_vec(),
        consumer::ReplicaStatus::failed("boom").encode_to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise_all(&bytes.into());
    }

    #[test]
    fn mutated_messages(
        sample in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let mut bytes = sample.get(&samples).clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        exercise_all(&Bytes::copy_from_slice(&bytes));
        bytes.truncate(cut.index(bytes.len()));
        exercise_all(&bytes.into());
    }

    #[test]
    fn any_text_is_a_name_a_url_or_an_error(text in "([a-z0-9:/?#%@\\[\\].;=, -]|azure-ad://|\\PC){0,40}") {
        let _ = crate::JournalName::split_meta(&text);
        let _ = crate::ShardId::parse(&text);
        let _ = endpoint::dial_address(&text);
        let _ = endpoint::validate(&text);
        if let Ok(url) = StoreUrl::parse(&text) {
            prop_assert!(!url.path.split('/').any(|element| element == ".."));
            let _ = url.query_pairs().count();
        }
        if let Ok(name) = crate::JournalName::parse(&text) {
            prop_assert!(!name.as_str().starts_with('/') && !name.as_str().split('/').any(|element| element == ".."));
        }
    }
}
