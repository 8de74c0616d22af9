//! Counts n-grams of texts, and serves the counts.
