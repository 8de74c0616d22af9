//! Messages in journals: UUIDs, clocks, framings, mappings, publisher and sequencer.
