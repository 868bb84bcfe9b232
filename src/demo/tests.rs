//! The demo as a whole.
