//! Which of a shard's stored hints to play back from. Pure.

use proto::consumer::GetHintsResponse;
use proto::recoverylog::FsmHints;

use super::last_seq_no;

/// The hints which reach furthest into the log: those with the greatest last sequence number. The primary's win a tie,
/// then earlier backups. Without any, hints of the whole `log`.
pub fn pick(response: &GetHintsResponse, log: &str) -> FsmHints {
    let stored = response.primary_hints.iter().chain(&response.backup_hints);
    let mut best: Option<&FsmHints> = None;
    for hints in stored.filter_map(|stored| stored.hints.as_ref()) {
        if best.is_none_or(|best| last_seq_no(hints) > last_seq_no(best)) {
            best = Some(hints);
        }
    }
    best.cloned().unwrap_or_else(|| FsmHints { log: log.to_owned(), ..FsmHints::default() })
}

#[cfg(test)]
mod tests {
    use proto::consumer::get_hints_response::ResponseHints;
    use proto::recoverylog::{FnodeSegments, Segment};

    use super::*;

    fn hints(last: i64, first: i64) -> ResponseHints {
        let segment = Segment { author: 1, first_seq_no: first, last_seq_no: last, ..Segment::default() };
        let live_nodes = vec![FnodeSegments { fnode: first, segments: vec![segment] }];
        ResponseHints {
            hints: Some(FsmHints { log: "a/log".to_owned(), live_nodes, properties: Vec::new() }),
        }
    }

    fn picked(primary: Option<ResponseHints>, backups: &[ResponseHints]) -> (i64, i64) {
        let response = GetHintsResponse {
            primary_hints: Some(primary.unwrap_or_default()),
            backup_hints: backups.to_vec(),
            ..GetHintsResponse::default()
        };
        let hints = pick(&response, "a/log");
        assert_eq!(hints.log, "a/log");
        (last_seq_no(&hints), hints.live_nodes.first().map_or(0, |node| node.fnode))
    }

    #[test]
    fn the_hints_which_reach_furthest_are_picked() {
        assert_eq!(picked(None, &[]), (0, 0));
        assert_eq!(picked(Some(hints(9, 1)), &[]), (9, 1));
        assert_eq!(picked(None, &[ResponseHints::default(), hints(9, 1)]), (9, 1));
        assert_eq!(picked(Some(hints(5, 1)), &[hints(9, 2), hints(7, 3)]), (9, 2));
        assert_eq!(picked(Some(hints(9, 1)), &[hints(9, 2)]), (9, 1));
    }
}
