//! Access tokens (journal protocol §13).
