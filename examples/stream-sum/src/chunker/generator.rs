//! Makes interleaved streams of random chunks, and knows the sum which each must have.
//!
//! Each turn picks evenly among the open streams and, while more may be opened, one new stream. A stream has a set
//! number of chunks with data, and then an empty one. Pure: randomness is an argument of the constructor.

use runtime::Entropy;

use crate::{Chunk, StreamId, Sum, Updated};

/// Bytes of data in a chunk.
const DATA_BYTES: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Generator {
    entropy: Entropy,
    open: Vec<Sum>,
    /// Streams which may still be opened; `None` is without end.
    left: Option<u64>,
    chunks: u64,
}

/// One chunk, in the order in which it must be published.
#[derive(Debug)]
pub struct Generated {
    /// The chunk.
    pub chunk: Chunk,
    /// True of the first chunk of a stream.
    pub opens: bool,
    /// What the stream must sum up to, if this chunk ends it.
    pub ends: Option<Sum>,
}

impl Generator {
    /// A generator of `streams` streams (`None` is without end) of `chunks` chunks with data each.
    pub fn new(streams: Option<u64>, chunks: u64, entropy: Entropy) -> Generator {
        Generator { entropy, open: Vec::new(), left: streams, chunks }
    }

    /// Opens no more streams; those which are open go on to their end.
    pub fn stop(&mut self) {
        self.left = Some(0);
    }

    fn open_stream(&mut self) {
        let mut id = StreamId::default();
        self.entropy.fill(&mut id.0);
        self.open.push(Sum::of_stream(id));
        self.left = self.left.map(|left| left - 1);
    }
}

impl Iterator for Generator {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        let slots = self.open.len() as u64 + u64::from(self.left != Some(0));
        if slots == 0 {
            return None;
        }
        let index = self.entropy.below(slots) as usize;
        let opens = index == self.open.len();
        if opens {
            self.open_stream();
        }
        let sum = &mut self.open[index];
        let mut chunk = Chunk { id: sum.id, seq_no: sum.seq_no + 1, ..Chunk::default() };
        if sum.seq_no.unsigned_abs() < self.chunks {
            chunk.data.resize(DATA_BYTES, 0);
            self.entropy.fill(&mut chunk.data);
        }
        let ends = match sum.update(&chunk).expect("the chunk was made to follow") {
            Updated::Open => None,
            Updated::Done => Some(self.open.swap_remove(index)),
        };
        Some(Generated { chunk, opens, ends })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn streams_interleave_and_each_ends_with_an_empty_chunk_and_its_sum() {
        let (mut sums, mut ended, mut switches, mut last) = (BTreeMap::new(), 0, 0, StreamId::default());
        for Generated { chunk, opens, ends } in Generator::new(Some(10), 5, Entropy::seeded(1)) {
            assert_eq!(opens, !sums.contains_key(&chunk.id));
            let sum = sums.entry(chunk.id).or_insert_with(|| Sum::of_stream(chunk.id));
            assert_eq!(sum.update(&chunk).unwrap() == Updated::Done, ends.is_some());
            if let Some(expected) = ends {
                assert_eq!((&expected, expected.seq_no), (&*sum, 6));
                ended += 1;
            }
            switches += u64::from(chunk.id != last);
            last = chunk.id;
        }
        assert_eq!((sums.len(), ended), (10, 10));
        assert!(switches > 20, "{switches}");
    }

    #[test]
    fn an_endless_generator_finishes_its_open_streams_when_stopped() {
        let mut generator = Generator::new(None, 3, Entropy::seeded(2));
        let first: Vec<_> = generator.by_ref().take(1000).collect();
        generator.stop();
        let rest: Vec<_> = generator.collect();
        assert!(rest.iter().all(|generated| !generated.opens));
        let count = |what: fn(&Generated) -> bool| first.iter().chain(&rest).filter(|g| what(g)).count();
        assert_eq!(count(|g| g.opens), count(|g| g.ends.is_some()));
    }

    #[test]
    fn a_stream_without_chunks_is_one_empty_chunk() {
        let all: Vec<_> = Generator::new(Some(2), 0, Entropy::seeded(3)).collect();
        assert!(all.len() == 2 && all.iter().all(|g| g.opens && g.ends.is_some() && g.chunk.data.is_empty()));
    }
}
