//! Protocol logic is pure: the listed files do no I/O, read no clock and know no runtime.

use super::{assert_none, files, root};

/// State machines and formats that take events and time as arguments and give effects back.
const PURE: &[&str] = &[
    "broker/src/append/grace.rs",
    "broker/src/append/group.rs",
    "broker/src/append/precondition.rs",
    "broker/src/apply/change.rs",
    "broker/src/drain.rs",
    "broker/src/flow.rs",
    "broker/src/fragments/page.rs",
    "broker/src/gateway/headers.rs",
    "broker/src/gateway/range.rs",
    "broker/src/gateway/target.rs",
    "broker/src/key_space.rs",
    "broker/src/list/snapshot.rs",
    "broker/src/listings/names.rs",
    "broker/src/local_set.rs",
    "broker/src/pipeline/sync.rs",
    "broker/src/pulse/calm.rs",
    "broker/src/read/core.rs",
    "broker/src/replica/refresh/rule.rs",
    "broker/src/replica/settle.rs",
    "broker/src/resolution.rs",
    "broker/src/retention/plan.rs",
    "consumer/src/drain.rs",
    "consumer/src/hints/rotate.rs",
    "consumer/src/progress.rs",
    "consumer/src/schema.rs",
    "consumer/src/service/apply.rs",
    "consumer/src/service/deadline.rs",
    "consumer/src/service/decision.rs",
    "consumer/src/service/list.rs",
    "consumer/src/service/unassign.rs",
    "consumer/src/shard/budget.rs",
    "consumer/src/shard/held.rs",
    "consumer/src/shard/hint_pace.rs",
    "consumer/src/shard/local_set.rs",
    "consumer/src/shard/status.rs",
    "consumer/src/txn/core.rs",
    "crates/allocator/src/converge.rs",
    "crates/allocator/src/max_flow.rs",
    "crates/allocator/src/max_flow/path.rs",
    "crates/allocator/src/max_flow/placing.rs",
    "crates/allocator/src/solver.rs",
    "crates/allocator/src/state.rs",
    "crates/client/src/append_service/verdict.rs",
    "crates/client/src/brokers.rs",
    "crates/client/src/reader/frames.rs",
    "crates/client/src/reader/retry.rs",
    "crates/client/src/routes.rs",
    "crates/client/src/specs/journal_node.rs",
    "crates/client/src/specs/journal_tree.rs",
    "crates/client/src/specs/shard_set.rs",
    "crates/client/src/specs/values.rs",
    "crates/fragment/src/codec.rs",
    "crates/fragment/src/cover_set.rs",
    "crates/fragment/src/fragment.rs",
    "crates/fragment/src/index.rs",
    "crates/fragment/src/index/remote.rs",
    "crates/fragment/src/spool.rs",
    "crates/fragment/src/spool/manifest.rs",
    "crates/fragment/src/spool/roll.rs",
    "crates/fragment/src/sum.rs",
    "crates/keyspace/src/batch.rs",
    "crates/keyspace/src/embedded/record.rs",
    "crates/keyspace/src/embedded/store.rs",
    "crates/keyspace/src/keys.rs",
    "crates/keyspace/src/seen.rs",
    "crates/keyspace/src/space.rs",
    "crates/message/src/clock.rs",
    "crates/message/src/csv.rs",
    "crates/message/src/fixed.rs",
    "crates/message/src/framing.rs",
    "crates/message/src/json.rs",
    "crates/message/src/lib.rs",
    "crates/message/src/mapping.rs",
    "crates/message/src/message.rs",
    "crates/message/src/publisher.rs",
    "crates/message/src/sequencer.rs",
    "crates/message/src/sequencer/checkpoint.rs",
    "crates/message/src/sequencer/decision.rs",
    "crates/message/src/sequencer/pruning.rs",
    "crates/message/src/sequencer/replay.rs",
    "crates/message/src/sequencer/ring.rs",
    "crates/message/src/uuid.rs",
    "crates/recoverylog/src/author.rs",
    "crates/recoverylog/src/fsm.rs",
    "crates/recoverylog/src/hints.rs",
    "crates/recoverylog/src/hints/pick.rs",
    "crates/recoverylog/src/op.rs",
    "crates/recoverylog/src/path.rs",
    "crates/recoverylog/src/play_error.rs",
    "crates/recoverylog/src/playback.rs",
    "crates/recoverylog/src/prune.rs",
    "crates/recoverylog/src/recording.rs",
    "crates/recoverylog/src/segment.rs",
    "crates/recoverylog/src/step.rs",
    "crates/store-rocksdb/src/keys.rs",
    "crates/store-rocksdb/src/overlay.rs",
    "crates/store-sqlite/src/header.rs",
    "crates/store-sqlite/src/log_buffer.rs",
    "crates/store-sqlite/src/names.rs",
    "crates/store-sqlite/src/pages.rs",
    "crates/stores/src/listing.rs",
    "crates/stores/src/location.rs",
    "examples/stream-sum/src/chunker/generator.rs",
    "examples/stream-sum/src/chunker/verifier.rs",
    "examples/stream-sum/src/crc64.rs",
    "examples/stream-sum/src/message.rs",
    "proto/src/append_rpc.rs",
    "proto/src/apply_rpc.rs",
    "proto/src/canonical.rs",
    "proto/src/checkpoint.rs",
    "proto/src/duration.rs",
    "proto/src/endpoint.rs",
    "proto/src/fragment.rs",
    "proto/src/fragments_rpc.rs",
    "proto/src/header.rs",
    "proto/src/hints.rs",
    "proto/src/invalid.rs",
    "proto/src/journal_spec.rs",
    "proto/src/label_selector.rs",
    "proto/src/label_set.rs",
    "proto/src/labels.rs",
    "proto/src/lib.rs",
    "proto/src/list_rpc.rs",
    "proto/src/media_type.rs",
    "proto/src/member_id.rs",
    "proto/src/names.rs",
    "proto/src/path.rs",
    "proto/src/process.rs",
    "proto/src/read_rpc.rs",
    "proto/src/replica_status.rs",
    "proto/src/replicate_rpc.rs",
    "proto/src/revision.rs",
    "proto/src/route.rs",
    "proto/src/selector_text.rs",
    "proto/src/sha1_sum.rs",
    "proto/src/shard_rpc.rs",
    "proto/src/shard_spec.rs",
    "proto/src/status.rs",
    "proto/src/store_url.rs",
    "proto/src/token.rs",
    "proto/src/url_parts.rs",
    "tests/src/history.rs",
    "tests/src/report.rs",
];

/// What a pure file must not name.
const IMPURE: &[&str] = &["async ", ".await", "tokio", "std::fs", "std::net", "now()", "thread::"];

#[test]
fn listed_files_exist() {
    let missing = PURE.iter().filter(|path| !root().join(path).exists());
    assert_none("a listed file exists", missing.map(|path| (*path).to_owned()).collect());
    assert!(PURE.len() >= 10, "the list names the state machines");
}

#[test]
fn state_machines_are_pure() {
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if !PURE.contains(&path.as_str()) {
            continue;
        }
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in product.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = IMPURE.iter().find(|word| code.contains(**word)) {
                findings.push(format!("{path}:{}: `{}` in a pure file", number + 1, word.trim()));
            }
        }
    }
    assert_none("a listed file is pure", findings);
}
