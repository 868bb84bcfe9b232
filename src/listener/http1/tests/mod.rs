//! The guard against raw bytes, alone and in front of hyper.
