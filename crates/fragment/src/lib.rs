//! Fragments of journals: names, codecs, the cover-set index and the spool.
