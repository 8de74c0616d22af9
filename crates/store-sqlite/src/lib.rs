//! A SQLite store whose file operations are recorded.
