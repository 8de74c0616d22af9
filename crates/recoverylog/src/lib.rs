//! Recorded file operations: format, state machine, hints, recorder and player.
