//! Recovery logs: recorded file operations, their state machine, hints, the recorder and the player.
//!
//! A store's files are local and may be lost at any time. What survives is a journal, the *recovery log*, to which a
//! [`Recorder`] appends every operation on those files, in order and before it counts as done. A [`Player`] reads a log,
//! guided by hints of where the live files are, and rebuilds the directory elsewhere. A journal register is the fence:
//! whoever takes it next stops the recorder before.
//!
//! Logs grow for ever, and [`prune`] tells by the stored hints which parts of them nobody will read again.
//!
//! The formats are those of the consumer protocol §4, byte for byte. The state machine ([`Fsm`]), the segments, the
//! playback and the recording are pure; [`Recorder`] and [`Player`] do their I/O. Two promises hold throughout: a player
//! never presents an older state than its hints speak of, and a recorder which lost the fence fails at once.

mod author;
mod deletion;
mod fsm;
pub mod hints;
mod op;
mod path;
mod play_error;
mod playback;
mod player;
pub mod prune;
mod record_error;
mod recorder;
mod recording;
mod replay;
mod segment;
mod staging;
mod step;
mod tally;
#[cfg(test)]
mod testing;

pub use author::{Author, FENCE_REGISTER};
pub use deletion::{Deleted, Mode, delete_unneeded};
pub use fsm::{ApplyError, Fsm, Span};
pub use hints::HintsError;
pub use op::{Action, FRAME_BYTES_MAX, Fnode, Op, chain};
pub use play_error::{BrokenChain, Doubt, PlayError};
pub use playback::Playback;
pub use player::{Played, Player, Progress};
pub use record_error::RecordError;
pub use recorder::Recorder;
pub use recording::{NotYet, Recording, RecordingError, complete_hints, is_property};
pub use replay::replay;
pub use segment::{Segment, SegmentError, SegmentSet};
pub use step::{FileOp, Step};
pub use tally::Tally;
