//! Real Valkeys of every shape: with Sentinel, as a cluster, with TLS and ACL users.
