//! From refusals to status codes: the one place that knows both.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::domain::{InventoryRefused, MetadataError};
use crate::service::{CallRefused, FileRefused, PostInstallRefused, ReportRefused};

use super::plain;

/// A refusal on its way to a machine.
pub(super) enum Refusal {
    Call(CallRefused),
    Report(ReportRefused),
    PostInstall(PostInstallRefused),
    File(FileRefused),
    /// The request itself is wrong.
    BadRequest(String),
    /// It is switched off.
    Forbidden(&'static str),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let sentence = match &self {
            Self::Call(refused) => refused.to_string(),
            Self::Report(refused) => refused.to_string(),
            Self::PostInstall(refused) => refused.to_string(),
            Self::File(refused) => refused.to_string(),
            Self::BadRequest(sentence) => sentence.clone(),
            Self::Forbidden(sentence) => (*sentence).to_owned(),
        };
        self.log();
        let mut response = plain(status, &sentence);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        response
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Call(refused)
            | Self::Report(ReportRefused::Call(refused))
            | Self::PostInstall(PostInstallRefused::Call(refused)) => match refused {
                CallRefused::UnknownHost => StatusCode::NOT_FOUND,
                CallRefused::WrongBootId => StatusCode::UNAUTHORIZED,
                CallRefused::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Report(ReportRefused::Superseded) => StatusCode::CONFLICT,
            Self::Report(ReportRefused::NoInventory(_))
            | Self::Report(ReportRefused::Inventory(InventoryRefused::WrongBootId)) => StatusCode::UNAUTHORIZED,
            Self::Report(ReportRefused::Inventory(InventoryRefused::TooManyMacs)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Report(
                ReportRefused::Inventory(InventoryRefused::Metadata(error)) | ReportRefused::Metadata(error),
            ) => match error {
                MetadataError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                MetadataError::NotJson(_) | MetadataError::NotAnObject | MetadataError::TooDeep => {
                    StatusCode::BAD_REQUEST
                }
            },
            Self::Report(ReportRefused::Mac(_)) | Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::PostInstall(
                PostInstallRefused::Render(_) | PostInstallRefused::Fault(_) | PostInstallRefused::Plugin(_),
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::File(FileRefused::NotFound) => StatusCode::NOT_FOUND,
            Self::File(FileRefused::Unreadable(_) | FileRefused::Render(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::File(FileRefused::Store(_) | FileRefused::Plugin(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
        }
    }

    /// What machines are not told, operators are.
    fn log(&self) {
        match self {
            Self::PostInstall(PostInstallRefused::Render(error)) | Self::File(FileRefused::Render(error)) => {
                tracing::error!(%error, "a template could not be rendered");
            }
            Self::PostInstall(PostInstallRefused::Plugin(error)) | Self::File(FileRefused::Plugin(error)) => {
                tracing::error!(%error, "a document waits for a plugin");
            }
            Self::File(FileRefused::Unreadable(error)) => tracing::error!(%error, "a file could not be read"),
            Self::File(FileRefused::Store(error)) => tracing::error!(%error, "the store did not answer"),
            Self::Call(CallRefused::Store(error))
            | Self::Report(ReportRefused::Call(CallRefused::Store(error)))
            | Self::PostInstall(PostInstallRefused::Call(CallRefused::Store(error))) => {
                tracing::error!(%error, "the store did not answer");
            }
            Self::Call(_) | Self::Report(_) | Self::PostInstall(_) | Self::File(_) => {}
            Self::BadRequest(_) | Self::Forbidden(_) => {}
        }
    }
}

impl From<CallRefused> for Refusal {
    fn from(refused: CallRefused) -> Self {
        Self::Call(refused)
    }
}

impl From<ReportRefused> for Refusal {
    fn from(refused: ReportRefused) -> Self {
        Self::Report(refused)
    }
}

impl From<PostInstallRefused> for Refusal {
    fn from(refused: PostInstallRefused) -> Self {
        Self::PostInstall(refused)
    }
}

impl From<FileRefused> for Refusal {
    fn from(refused: FileRefused) -> Self {
        Self::File(refused)
    }
}
