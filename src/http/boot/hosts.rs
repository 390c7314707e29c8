//! `/hosts`: the table that KIWIspray printed, for scripts that read it. Off unless the configuration opens it.

use axum::extract::State;
use axum::response::Response;

use super::error::Refusal;
use super::{BootPlane, private_text};

pub(super) async fn hosts(State(plane): State<BootPlane>) -> Result<Response, Refusal> {
    match plane.service.open_table().await? {
        Some(table) => Ok(private_text("text/plain; charset=utf-8", table)),
        None => Err(Refusal::Forbidden("the table of hosts is not open: set boot.open_hosts = true")),
    }
}
