//! `webhook` against a receiver that verifies, refuses and remembers.
