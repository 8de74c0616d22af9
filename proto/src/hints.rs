//! Rules of recovery-log segments and hints, as far as they concern one message. How the segments of hints must fit
//! together is the business of the recovery log.

use crate::invalid::{Invalid, Validate, ensure};
use crate::names::{Parents, check_journal};
use crate::recoverylog::{FnodeSegments, FsmHints, Segment};

impl Validate for FsmHints {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal(&self.log, Parents::Permit).map_err(|e| e.within("Log"))?;
        for (i, node) in self.live_nodes.iter().enumerate() {
            check_node(node, &self.log).map_err(|e| e.within(format!("LiveNodes[{i}]")))?;
        }
        Ok(())
    }
}

/// A segment which does not name its log is in that of the hints.
fn check_node(node: &FnodeSegments, log: &str) -> Result<(), Invalid> {
    for (i, segment) in node.segments.iter().enumerate() {
        let outcome = check_numbers(segment).and_then(|()| {
            ensure!(
                segment.log != log,
                "segment log must differ from that of the hints if it is set ({log})"
            );
            if segment.log.is_empty() { Ok(()) } else { check_log(&segment.log) }
        });
        outcome.map_err(|e| e.within(format!("Segments[{i}]")))?;
    }
    Ok(())
}

/// A segment by itself, outside of hints: its log must be set.
impl Validate for Segment {
    fn validate(&self) -> Result<(), Invalid> {
        check_numbers(self)?;
        check_log(&self.log)
    }
}

fn check_log(log: &str) -> Result<(), Invalid> {
    check_journal(log, Parents::Permit).map_err(|e| e.within("Log"))
}

fn check_numbers(segment: &Segment) -> Result<(), Invalid> {
    let Segment { author, first_seq_no, first_offset, last_seq_no, last_offset, .. } = *segment;
    ensure!(author != 0, "invalid Author (expected != 0)");
    ensure!(first_seq_no > 0, "invalid FirstSeqNo ({first_seq_no}; expected > 0)");
    ensure!(first_offset >= 0, "invalid FirstOffset ({first_offset}; expected >= 0)");
    ensure!(
        last_seq_no >= first_seq_no,
        "invalid LastSeqNo ({last_seq_no}; expected >= FirstSeqNo {first_seq_no})"
    );
    ensure!(
        last_offset == 0 || last_offset > first_offset,
        "invalid LastOffset ({last_offset}; expected 0 or > FirstOffset {first_offset})"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        Segment {
            author: 7,
            first_seq_no: 2,
            first_offset: 10,
            first_checksum: 3,
            last_seq_no: 4,
            last_offset: 11,
            log: "a/log".into(),
        }
    }

    #[test]
    fn segment_rules() {
        let text = |edit: fn(&mut Segment)| {
            let mut s = segment();
            edit(&mut s);
            s.validate().unwrap_err().to_string()
        };
        assert_eq!(segment().validate(), Ok(()));
        assert_eq!(text(|s| s.author = 0), "invalid Author (expected != 0)");
        assert_eq!(text(|s| s.first_seq_no = 0), "invalid FirstSeqNo (0; expected > 0)");
        assert_eq!(text(|s| s.first_offset = -1), "invalid FirstOffset (-1; expected >= 0)");
        assert_eq!(text(|s| s.last_seq_no = 1), "invalid LastSeqNo (1; expected >= FirstSeqNo 2)");
        assert_eq!(text(|s| s.last_offset = 10), "invalid LastOffset (10; expected 0 or > FirstOffset 10)");
        assert_eq!(text(|s| s.log = "bad log".into()), "Log: not a valid token (bad log)");
    }

    #[test]
    fn hints_name_the_place() {
        let node = FnodeSegments { fnode: 2, segments: vec![segment()] };
        let mut hints = FsmHints { log: "b/log".into(), live_nodes: vec![node], properties: vec![] };
        assert_eq!(hints.validate(), Ok(()));
        hints.live_nodes[0].segments[0].log = "b/log".into();
        assert_eq!(
            hints.validate().unwrap_err().to_string(),
            "LiveNodes[0].Segments[0]: segment log must differ from that of the hints if it is set (b/log)"
        );
        hints.live_nodes[0].segments[0].log.clear();
        assert_eq!(hints.validate(), Ok(()));
        hints.log = "x".into();
        assert_eq!(
            hints.validate().unwrap_err().to_string(),
            "Log: invalid length (1; expected 4 <= length <= 512)"
        );
    }
}
