//! Every error of a subsystem as the status that a caller gets: `?` does it.

use std::time::Duration;

use tonic::Status;
use tonic_types::FieldViolation;

use super::{
    Reason, already_exists, data_loss, failed_precondition, internal, invalid, invalid_argument,
    not_found, retry_later, status, unavailable,
};
use crate::{audit, blocking, coordinator, objects, store, version};

/// When a bucket that does not answer may be asked again.
const AWAY: Duration = Duration::from_secs(10);

impl From<blocking::Stopping> for Status {
    fn from(error: blocking::Stopping) -> Self {
        unavailable(error.to_string())
    }
}

impl From<coordinator::Error> for Status {
    fn from(error: coordinator::Error) -> Self {
        use coordinator::{Error, Refusal};
        match error {
            Error::Refused(Refusal::NoSuchJob(id)) => not_found(format!("jobs/{id}")),
            Error::Refused(Refusal::NoSuchWorker(name)) => not_found(format!("workers/{name}")),
            Error::Refused(refusal @ Refusal::TooMuch { .. }) => too_much(&refusal),
            Error::Refused(refusal @ Refusal::RequestIdReused { .. }) => {
                already_exists(Reason::RequestIdReused, refusal.to_string())
            }
            Error::Stopped => unavailable(error.to_string()),
            Error::Store(error) => error.into(),
            Error::Audit(error) => error.into(),
        }
    }
}

fn too_much(refusal: &coordinator::Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        coordinator::Refusal::TooMuch {
            owner,
            what,
            open,
            most,
            retry,
            ..
        } => retry_later(
            Reason::TooMuchOpen,
            message,
            Duration::from_millis(*retry),
            [
                ("owner", owner.clone()),
                ("what", (*what).to_owned()),
                ("open", open.to_string()),
                ("limit", most.to_string()),
            ],
        ),
        _ => internal(refusal),
    }
}

impl From<store::Error> for Status {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Object(error) => error.into(),
            store::Error::Damaged { .. } => data_loss(&error),
            store::Error::NoSpace { .. } => status(Reason::DiskFull, error.to_string(), []),
            store::Error::Occupied { .. } => status(Reason::StoreOccupied, error.to_string(), []),
            _ => internal(&error),
        }
    }
}

impl From<objects::Error> for Status {
    fn from(error: objects::Error) -> Self {
        use objects::Error;
        let message = error.to_string();
        match &error {
            Error::BadDigest { .. } => invalid_argument("digest", message),
            Error::NotFound { digest } => status(
                Reason::NotFound,
                message,
                [("resource", format!("objects/{digest}"))],
            ),
            Error::Mismatch { expected, actual } => invalid(
                Reason::DigestMismatch,
                message.clone(),
                vec![FieldViolation::new("digest", message)],
                [
                    ("digest", expected.to_string()),
                    ("actual_digest", actual.to_string()),
                ],
            ),
            Error::SizeMismatch {
                digest,
                announced,
                received,
            } => invalid(
                Reason::SizeMismatch,
                message.clone(),
                vec![FieldViolation::new("size", message)],
                [
                    ("digest", digest.to_string()),
                    ("announced_size", announced.to_string()),
                    ("received_size", received.to_string()),
                ],
            ),
            Error::Offset {
                digest, committed, ..
            } => status(
                Reason::WrongOffset,
                message,
                [
                    ("digest", digest.to_string()),
                    ("committed_size", committed.to_string()),
                ],
            ),
            Error::Incomplete {
                digest, committed, ..
            } => status(
                Reason::ObjectIncomplete,
                message,
                [
                    ("digest", digest.to_string()),
                    ("committed_size", committed.to_string()),
                ],
            ),
            Error::PastEnd { digest, size, .. } => status(
                Reason::OffsetPastEnd,
                message,
                [("digest", digest.to_string()), ("size", size.to_string())],
            ),
            Error::Busy { digest } => status(
                Reason::ObjectBusy,
                message,
                [("digest", digest.to_string())],
            ),
            Error::NoSpace { .. } => {
                tracing::error!(error = message, "the disk is full");
                status(Reason::DiskFull, message, [])
            }
            Error::Quota {
                digest,
                size,
                used,
                limit,
            } => status(
                Reason::QuotaExceeded,
                message,
                [
                    ("digest", digest.to_string()),
                    ("size", size.to_string()),
                    ("used_bytes", used.to_string()),
                    ("limit_bytes", limit.to_string()),
                ],
            ),
            Error::Corrupt { .. } | Error::BucketCorrupt { .. } => data_loss(&error),
            Error::BucketAway { .. } => {
                tracing::error!(error = message, "the bucket does not answer");
                retry_later(Reason::BucketAway, message, AWAY, [])
            }
            Error::BucketRefused { .. } => {
                tracing::error!(error = message, "the bucket refuses");
                failed_precondition(Reason::BucketRefused, message)
            }
            Error::Stopping => unavailable(message),
            Error::Changed { .. }
            | Error::Io { .. }
            | Error::Transfer { .. }
            | Error::Credentials { .. }
            | Error::BucketSettings { .. } => internal(&error),
        }
    }
}

impl From<audit::Error> for Status {
    fn from(error: audit::Error) -> Self {
        match error {
            audit::Error::Store(error) => error.into(),
            audit::Error::Damaged { .. } => {
                tracing::error!(error = %error, "the audit log is damaged");
                status(Reason::AuditLogDamaged, error.to_string(), [])
            }
            audit::Error::Key { .. } | audit::Error::Note { .. } => internal(&error),
        }
    }
}

impl From<version::Error> for Status {
    fn from(error: version::Error) -> Self {
        let message = error.to_string();
        use version::Error;
        match error {
            Error::Unknown { what, name, model } => status(
                Reason::NotFound,
                message,
                [("resource", format!("models/{model}/{what}s/{name}"))],
            ),
            Error::Ambiguous { .. } => invalid_argument("name", message),
            Error::Factor { .. } | Error::Tensor { .. } => {
                invalid_argument("edit.factors", message)
            }
            Error::NotFinite { .. } => invalid_argument("edit.factors", message),
            Error::Field { field, problem } => invalid_argument(field, problem),
            Error::RefName { .. } => invalid_argument("ref_id", message),
            Error::Moved {
                name,
                expected,
                actual,
                etag,
                author,
            } => status(
                Reason::EtagMismatch,
                message,
                [
                    ("resource", name),
                    ("expected", expected),
                    ("version", actual),
                    ("etag", etag),
                    ("moved_by", author),
                ],
            ),
            Error::Tag { .. } => failed_precondition(Reason::RefIsTag, message),
            Error::Taken { .. } => already_exists(Reason::NameTaken, message),
            Error::NotThere { .. } => failed_precondition(Reason::EditNotInVersion, message),
            Error::AlreadyThere { .. } => failed_precondition(Reason::EditInVersion, message),
            Error::Whole { .. } => invalid_argument("format", message),
            Error::Rejected { .. } => failed_precondition(Reason::EditRejected, message),
            Error::Missing { .. } => failed_precondition(Reason::VersionIncomplete, message),
            Error::Materialised { .. } => data_loss(&error),
            Error::Model(_) | Error::Layout { .. } | Error::Export { .. } => internal(&error),
            Error::Store(error) => error.into(),
            Error::Object(objects::Error::NotFound { .. }) => {
                failed_precondition(Reason::ObjectMissing, message)
            }
            Error::Object(error) => error.into(),
        }
    }
}
