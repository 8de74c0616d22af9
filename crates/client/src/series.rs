//! What a client counts by journal (journal protocol §16). A journal's series are there while it is read or appended to.

use fragment::Codec;
use runtime::{HeldCounter, HeldCounters, Metrics};

/// The series of a client.
pub(crate) struct Series {
    appended: HeldCounters,
    read: HeldCounters,
    fragments: FragmentSeries,
}

/// Those of fragments which the client reads from their stores.
struct FragmentSeries {
    opened: HeldCounters,
    opened_content: HeldCounters,
    opened_stored: HeldCounters,
    read: HeldCounters,
    discarded: HeldCounters,
}

impl Series {
    pub(crate) fn new(metrics: &Metrics) -> Series {
        let of_journal = |name, help| metrics.held_counter_vec(name, help, &["journal"]);
        let of_fragments = |name, help| metrics.held_counter_vec(name, help, &["journal", "codec"]);
        Series {
            appended: of_journal("gazette_append_bytes_total", "Bytes appended to journals."),
            read: of_journal("gazette_read_bytes_total", "Bytes read from journals."),
            fragments: FragmentSeries {
                opened: of_fragments(
                    "gazette_fragment_open_total",
                    "Fragments whose reading from their store was begun.",
                ),
                opened_content: of_fragments("gazette_fragment_open_bytes_total", "Their content."),
                opened_stored: of_fragments(
                    "gazette_fragment_open_content_length_total",
                    "Bytes which stores had to send for them, as stored.",
                ),
                read: of_fragments(
                    "gazette_read_fragment_bytes_total",
                    "Content which was read of fragments from their stores.",
                ),
                discarded: of_fragments(
                    "gazette_discard_fragment_bytes_total",
                    "Content of such fragments which was passed over, to get to what was wanted.",
                ),
            },
        }
    }

    /// Bytes that are appended to a journal.
    pub(crate) fn appended(&self, journal: &str) -> HeldCounter {
        self.appended.hold(&[journal])
    }

    /// Bytes that are read of a journal.
    pub(crate) fn read(&self, journal: &str) -> HeldCounter {
        self.read.hold(&[journal])
    }

    /// What is read of a journal's fragments of this codec.
    pub(crate) fn fragments(&self, journal: &str, codec: Codec) -> FragmentCounts {
        let codec = codec.to_string();
        let hold = |counters: &HeldCounters| counters.hold(&[journal, &codec]);
        let FragmentSeries { opened, opened_content, opened_stored, read, discarded } = &self.fragments;
        FragmentCounts {
            opened: hold(opened),
            opened_content: hold(opened_content),
            opened_stored: hold(opened_stored),
            read: hold(read),
            discarded: hold(discarded),
        }
    }
}

/// Counters of the reading of a fragment.
pub(crate) struct FragmentCounts {
    opened: HeldCounter,
    opened_content: HeldCounter,
    opened_stored: HeldCounter,
    /// Content that was given to the reader.
    pub(crate) read: HeldCounter,
    /// Content that was passed over.
    pub(crate) discarded: HeldCounter,
}

impl FragmentCounts {
    /// Counts a fragment with this much content, of which the store sends `stored` bytes, if that is known.
    pub(crate) fn open(&self, content: u64, stored: Option<u64>) {
        self.opened.inc_by(1);
        self.opened_content.inc_by(content);
        self.opened_stored.inc_by(stored.unwrap_or(0));
    }
}
