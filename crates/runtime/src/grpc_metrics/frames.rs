//! The messages in a body of gRPC: each has a prefix of five bytes, a flag and its length. Pure.

/// Bytes of a message's prefix.
const PREFIX_BYTES: usize = 5;

/// Follows the messages of a body through its pieces.
#[derive(Default)]
pub(super) struct Frames {
    /// The prefix, as far as it was seen.
    prefix: [u8; PREFIX_BYTES],
    seen: usize,
    /// Bytes of the present message that are still to come.
    left: usize,
}

impl Frames {
    /// How many messages begin in the next piece: those whose prefix ends there.
    pub(super) fn begun_in(&mut self, mut piece: &[u8]) -> u64 {
        let mut begun = 0;
        loop {
            let passed = self.left.min(piece.len());
            self.left -= passed;
            piece = &piece[passed..];
            if piece.is_empty() {
                return begun;
            }
            let taken = (PREFIX_BYTES - self.seen).min(piece.len());
            self.prefix[self.seen..self.seen + taken].copy_from_slice(&piece[..taken]);
            self.seen += taken;
            piece = &piece[taken..];
            if self.seen == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.seen = 0;
                begun += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_a_body_is_cut() {
        let mut body = Vec::new();
        for length in [0_u32, 1, 7, 300, 0] {
            body.push(0);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend(std::iter::repeat_n(9, length as usize));
        }
        for cut in 1..=body.len() {
            let mut frames = Frames::default();
            let begun: u64 = body.chunks(cut).map(|piece| frames.begun_in(piece)).sum();
            assert_eq!(begun, 5, "cut at {cut}");
        }
        assert_eq!(Frames::default().begun_in(&[0, 0xff, 0xff, 0xff, 0xff, 1]), 1);
    }
}
