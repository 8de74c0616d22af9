//! Reading Zstandard: frames, of which some are to be passed over.

use std::io::{self, BufRead, Read};

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::entry::Notes;
use super::source::Source;
use super::{ZSTD_WINDOW_LOG_MAX, incomplete};

/// Decompresses any number of frames.
pub(super) struct Zstandard {
    decoder: Decoder<'static>,
    /// Whether the next byte begins a frame.
    is_between: bool,
}

impl Zstandard {
    /// Reads from the beginning of a frame.
    pub(super) fn new() -> io::Result<Zstandard> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        Ok(Zstandard { decoder, is_between: true })
    }

    /// Reads content into `output`.
    pub(super) fn read<R: Read>(
        &mut self,
        source: &mut Source<R>,
        output: &mut [u8],
        notes: &mut Notes,
    ) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        loop {
            let stored = source.fill_buf()?;
            let at_end = stored.is_empty();
            if self.is_between {
                if at_end {
                    return Ok(0);
                }
                self.decoder.reinit()?;
            }
            let mut input = InBuffer::around(stored);
            let mut content = OutBuffer::around(output);
            self.is_between = self.decoder.run(&mut input, &mut content)? == 0;
            let (taken, made) = (input.pos(), content.pos());
            source.consume(taken);
            notes.made(made as u64);
            if self.is_between {
                notes.can_enter(source.position(), || None);
            }
            if made > 0 {
                return Ok(made);
            }
            if at_end {
                return Err(incomplete("Zstandard frame"));
            }
        }
    }
}
