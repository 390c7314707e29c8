//! From refusals to problem documents: the one place that knows status codes and the stable `code`s.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::domain::{IdentityRefused, MetadataError, RetryRefused, SetRefused};
use crate::images::{ImportError, NotOffered};
use crate::service::{ApproveRefused, FileRefused, HostsError, OutboxError, RemoveRefused, RosterError, ScheduleError};
use crate::store::{KvError, StoreError};
use crate::wire::Problem;

/// A refusal on its way to a person.
#[derive(Debug)]
pub(super) enum Refusal {
    Hosts(HostsError),
    Import(ImportError),
    NotOffered(NotOffered),
    Remove(RemoveRefused),
    Roster(RosterError),
    Approve(ApproveRefused),
    Outbox(OutboxError),
    Schedule(ScheduleError),
    /// The request itself is wrong.
    BadRequest(String),
    /// The request has more than is taken.
    TooLarge,
    /// There is nothing to explain yet.
    Unexplained(String),
    /// A plugin stores nothing there.
    NoKey(String),
    /// That a payload was delivered could not be noted.
    Delivery(FileRefused),
    /// What only the server before this one may say.
    NotTheServer,
    /// There is no such path.
    NoRoute,
    /// The path has no such method.
    NoMethod,
    /// The images folder could not be read.
    Unreadable(std::io::Error),
    /// The thread that did the work is gone.
    Interrupted,
}

impl Refusal {
    /// The status and the code.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Hosts(error) | Self::Remove(RemoveRefused::Hosts(error)) => hosts(error),
            Self::Import(error) | Self::Remove(RemoveRefused::Images(error)) => import(error),
            Self::NotOffered(error) => not_offered(error),
            Self::Remove(RemoveRefused::InUse { .. } | RemoveRefused::NotOrdered { .. }) => {
                (StatusCode::CONFLICT, "image_in_use")
            }
            Self::Roster(error) => roster(error),
            Self::Approve(ApproveRefused::NotStopped(_)) => (StatusCode::CONFLICT, "plugin_not_stopped"),
            Self::Approve(ApproveRefused::Store(_)) => (StatusCode::SERVICE_UNAVAILABLE, "store_failed"),
            Self::Outbox(OutboxError::NotBound(_)) | Self::Schedule(ScheduleError::NotBound(_)) => {
                (StatusCode::CONFLICT, "plugin_not_bound")
            }
            Self::Outbox(OutboxError::NoLetter { .. } | OutboxError::NotParked { .. }) => {
                (StatusCode::NOT_FOUND, "letter_not_found")
            }
            Self::Outbox(OutboxError::StillBound(_)) => (StatusCode::CONFLICT, "plugin_bound"),
            Self::Outbox(OutboxError::Busy(_)) => (StatusCode::CONFLICT, "plugin_busy"),
            Self::Schedule(ScheduleError::NoJob { .. }) => (StatusCode::NOT_FOUND, "job_not_found"),
            Self::Schedule(ScheduleError::Busy(_)) => (StatusCode::CONFLICT, "job_running"),
            Self::Outbox(OutboxError::Store(_)) | Self::Schedule(ScheduleError::Store(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_failed")
            }
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Unexplained(_) => (StatusCode::NOT_FOUND, "not_seen"),
            Self::NoKey(_) => (StatusCode::NOT_FOUND, "key_not_found"),
            Self::Delivery(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_failed"),
            Self::NotTheServer => (StatusCode::FORBIDDEN, "not_the_server"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no_route"),
            Self::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "no_method"),
            Self::Unreadable(_) => (StatusCode::INTERNAL_SERVER_ERROR, "images_unreadable"),
            Self::Interrupted => (StatusCode::INTERNAL_SERVER_ERROR, "interrupted"),
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Hosts(HostsError::Store(error)) | Self::Remove(RemoveRefused::Hosts(HostsError::Store(error))) => {
                format!("the store: {error}")
            }
            Self::Hosts(error) => error.to_string(),
            Self::Import(error) => error.to_string(),
            Self::NotOffered(error) => error.to_string(),
            Self::Remove(error) => error.to_string(),
            Self::Roster(error) => error.to_string(),
            Self::Approve(ApproveRefused::Store(error)) => format!("the store: {error}"),
            Self::Approve(error) => error.to_string(),
            Self::Outbox(error) => error.to_string(),
            Self::Schedule(error) => error.to_string(),
            Self::BadRequest(why) | Self::Unexplained(why) | Self::NoKey(why) => why.clone(),
            Self::TooLarge => "the body is longer than what is taken here".to_owned(),
            Self::Delivery(error) => error.to_string(),
            Self::NotTheServer => "this is for servers of the same account only".to_owned(),
            Self::NoRoute => "the admin plane has no such path".to_owned(),
            Self::NoMethod => "this path has no such method".to_owned(),
            Self::Unreadable(error) => format!("the images folder cannot be read: {error}"),
            Self::Interrupted => "the server was interrupted in the middle of this".to_owned(),
        }
    }
}

fn hosts(error: &HostsError) -> (StatusCode, &'static str) {
    match error {
        HostsError::NotFound { .. } | HostsError::Gone(_) => (StatusCode::NOT_FOUND, "host_not_found"),
        HostsError::Ambiguous { .. } => (StatusCode::CONFLICT, "host_ambiguous"),
        HostsError::NotOne(_) => (StatusCode::BAD_REQUEST, "one_host_needed"),
        HostsError::Revised { .. } => (StatusCode::PRECONDITION_FAILED, "host_changed"),
        HostsError::OtherSerial { .. } => (StatusCode::CONFLICT, "other_serial"),
        HostsError::NothingToBoot { .. } => (StatusCode::NOT_FOUND, "image_not_found"),
        HostsError::NotOffered(error) => not_offered(error),
        HostsError::NameTaken { .. } => (StatusCode::CONFLICT, "name_taken"),
        HostsError::MayBeInstalled(_) => (StatusCode::CONFLICT, "reinstall_needed"),
        HostsError::KnownAs(_) => (StatusCode::CONFLICT, "host_known"),
        HostsError::NoIdentity => (StatusCode::BAD_REQUEST, "no_identity"),
        HostsError::TooManyMacs => (StatusCode::BAD_REQUEST, "too_many_macs"),
        HostsError::Set(SetRefused::Finished(_)) => (StatusCode::CONFLICT, "reinstall_needed"),
        HostsError::Set(SetRefused::AttemptRunning(_))
        | HostsError::Retry(RetryRefused::AttemptRunning(_))
        | HostsError::BeingInstalled(_) => (StatusCode::CONFLICT, "abort_needed"),
        HostsError::Set(SetRefused::Quarantined(..)) | HostsError::Retry(RetryRefused::Quarantined(..)) => {
            (StatusCode::CONFLICT, "quarantined")
        }
        HostsError::Locked(_) | HostsError::Set(SetRefused::Locked(_)) | HostsError::Retry(RetryRefused::Locked(_)) => {
            (StatusCode::CONFLICT, "locked")
        }
        HostsError::Retry(RetryRefused::NothingToRetry(..)) => (StatusCode::CONFLICT, "nothing_to_retry"),
        HostsError::Metadata(MetadataError::TooLarge(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "metadata_too_large"),
        HostsError::Metadata(MetadataError::NotJson(_) | MetadataError::NotAnObject | MetadataError::TooDeep) => {
            (StatusCode::BAD_REQUEST, "bad_metadata")
        }
        HostsError::Identity(IdentityRefused::NothingLeft(_) | IdentityRefused::TooManyMacs) => {
            (StatusCode::BAD_REQUEST, "no_identity")
        }
        HostsError::Identity(IdentityRefused::NoSuchMac { .. }) => (StatusCode::CONFLICT, "no_such_mac"),
        HostsError::IdentityTaken { .. } => (StatusCode::CONFLICT, "identity_taken"),
        HostsError::Adopt(_) => (StatusCode::CONFLICT, "adopt_refused"),
        HostsError::NotHeld(_) => (StatusCode::NOT_FOUND, "host_not_found"),
        HostsError::RefusedByPlugin(_) => (StatusCode::CONFLICT, "refused_by_plugin"),
        HostsError::Store(StoreError::Conflict) => (StatusCode::CONFLICT, "host_changed"),
        HostsError::Store(StoreError::OrderSpent) => (StatusCode::CONFLICT, "order_spent"),
        HostsError::Store(StoreError::NumberUsed(_)) => (StatusCode::CONFLICT, "number_used"),
        HostsError::Store(StoreError::Kv(KvError::Full { .. })) => (StatusCode::SERVICE_UNAVAILABLE, "store_full"),
        HostsError::Store(StoreError::Kv(_) | StoreError::Misnumbered { .. } | StoreError::Record { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, "store_failed")
        }
    }
}

fn roster(error: &RosterError) -> (StatusCode, &'static str) {
    match error {
        RosterError::NotFound { .. } => (StatusCode::NOT_FOUND, "plugin_not_found"),
        RosterError::Config(_) => (StatusCode::CONFLICT, "bad_configuration"),
        RosterError::Binding(_) => (StatusCode::BAD_REQUEST, "bad_binding"),
        RosterError::NotLoaded { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "plugin_not_loaded"),
        RosterError::Widened { .. } => (StatusCode::CONFLICT, "grants_widened"),
        RosterError::NothingBefore(_) => (StatusCode::CONFLICT, "nothing_before"),
        RosterError::Elsewhere { .. } => (StatusCode::CONFLICT, "bound_elsewhere"),
        RosterError::Default(_) => (StatusCode::CONFLICT, "default_plugin"),
        RosterError::File { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "plugin_files"),
        RosterError::Interrupted => (StatusCode::INTERNAL_SERVER_ERROR, "interrupted"),
    }
}

fn not_offered(error: &NotOffered) -> (StatusCode, &'static str) {
    match error {
        NotOffered::NoFolder(_) | NotOffered::BuiltIn(_) => (StatusCode::NOT_FOUND, "image_not_found"),
        NotOffered::NotAFolder(_)
        | NotOffered::FolderName(_)
        | NotOffered::NoManifest(_)
        | NotOffered::BadManifest { .. }
        | NotOffered::NotText(_)
        | NotOffered::NoDevice(_)
        | NotOffered::NotBuilt(_)
        | NotOffered::MissingFile { .. }
        | NotOffered::WrongSize { .. }
        | NotOffered::EmptyPayload { .. }
        | NotOffered::Unreadable { .. } => (StatusCode::CONFLICT, "image_not_offered"),
    }
}

fn import(error: &ImportError) -> (StatusCode, &'static str) {
    match error {
        ImportError::NoDevice => (StatusCode::BAD_REQUEST, "device_needed"),
        ImportError::BuiltIn(_)
        | ImportError::OwnWord(_)
        | ImportError::NeedlessDevice
        | ImportError::OneName(_)
        | ImportError::Empty(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        ImportError::Exists(_) => (StatusCode::CONFLICT, "image_exists"),
        ImportError::Missing(_) => (StatusCode::NOT_FOUND, "image_not_found"),
        ImportError::Busy => (StatusCode::CONFLICT, "images_busy"),
        ImportError::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no_space"),
        ImportError::Io(_) | ImportError::Manifest(_) => (StatusCode::INTERNAL_SERVER_ERROR, "images_failed"),
        ImportError::Archive(_)
        | ImportError::Kiwi(_)
        | ImportError::Live(_)
        | ImportError::Payload(_)
        | ImportError::WrongSum(_)
        | ImportError::WrongRawSize { .. }
        | ImportError::DanglingLink(..)
        | ImportError::WrongLength { .. }
        | ImportError::TooMuch
        | ImportError::BadManifest(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_archive"),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.kind();
        if status.is_server_error() {
            tracing::error!(code, refusal = ?self, "could not do what was asked");
        }
        let title = status.canonical_reason().unwrap_or("Refused").to_owned();
        let problem = Problem { title, status: status.as_u16(), detail: self.sentence(), code: code.to_owned() };
        let mut response = (status, Json(problem)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl From<HostsError> for Refusal {
    fn from(error: HostsError) -> Self {
        Self::Hosts(error)
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

impl From<NotOffered> for Refusal {
    fn from(error: NotOffered) -> Self {
        Self::NotOffered(error)
    }
}

impl From<RosterError> for Refusal {
    fn from(error: RosterError) -> Self {
        Self::Roster(error)
    }
}

impl From<OutboxError> for Refusal {
    fn from(error: OutboxError) -> Self {
        Self::Outbox(error)
    }
}

impl From<ScheduleError> for Refusal {
    fn from(error: ScheduleError) -> Self {
        Self::Schedule(error)
    }
}

impl From<ApproveRefused> for Refusal {
    fn from(error: ApproveRefused) -> Self {
        Self::Approve(error)
    }
}

impl From<RemoveRefused> for Refusal {
    fn from(error: RemoveRefused) -> Self {
        Self::Remove(error)
    }
}
