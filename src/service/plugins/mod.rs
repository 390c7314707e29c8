//! What plugins may ask and do.

mod orders;

pub use orders::ApproveRefused;
pub(in crate::service) use orders::Runs;
