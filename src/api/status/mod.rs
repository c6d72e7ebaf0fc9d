//! Every error as a gRPC status.
//!
//! A status carries a sentence for people and, for programs, an `ErrorInfo`: its `reason` is one
//! of [`Reason`], its domain [`DOMAIN`], and its metadata hold the values involved and the remedy.
//! What is wrong with a request is said field by field in `BadRequest`.

use std::collections::HashMap;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::text;

mod convert;

/// The `domain` of every `ErrorInfo` that Palimpsest sends.
pub const DOMAIN: &str = "palimpsest";

/// Most bytes of a message, of each value in the details, and of all violations that are listed:
/// they travel in trailers, of which clients take 8 KiB or 16 KiB.
const MESSAGE_LIMIT: usize = 1 << 10;
const VALUE_LIMIT: usize = 400;
const VIOLATIONS: usize = 2 << 10;

/// One line a reason: its variant, the code it is sent with, and what to do about it.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident, $code:ident, $remedy:literal;)+) => {
        /// What went wrong, as `ErrorInfo.reason` says it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code of its status.
            pub fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)+
                }
            }

            /// What whoever gets it should do.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }

            const fn variant(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// A field of the request is missing, malformed or out of range.
    InvalidField, InvalidArgument, "correct what is named";
    /// The page token was not given out by this method.
    InvalidPageToken, InvalidArgument, "list again from the first page";
    /// The bytes of an object do not have its digest.
    DigestMismatch, InvalidArgument, "check the source and write the object again from offset 0";
    /// An object has more or fewer bytes than announced.
    SizeMismatch, InvalidArgument, "write the object again from offset 0";
    /// The resource does not exist.
    NotFound, NotFound, "check the name, or create the resource first";
    /// Another resource has the name.
    NameTaken, AlreadyExists, "choose another name";
    /// The request id was used for a different request.
    RequestIdReused, AlreadyExists, "give every new request an id of its own";
    /// An object that the request refers to is not stored.
    ObjectMissing, FailedPrecondition, "upload the object, then repeat the request";
    /// Tags stay where they are.
    RefIsTag, FailedPrecondition, "make another tag, or set 'force'";
    /// The version has no such edit.
    EditNotInVersion, FailedPrecondition, "look at the version's edits and name one of them";
    /// The version has the edit already.
    EditInVersion, FailedPrecondition, "nothing is to be done";
    /// The edit failed its gates.
    EditRejected, FailedPrecondition, "compute it again with other settings, or other gates";
    /// The coordinator's gates ask for what was not measured.
    EditUnmeasured, FailedPrecondition, "let a job compute the edit: it measures what the gates ask for";
    /// The lease ended, or never was.
    LeaseNotLive, FailedPrecondition, "drop the lease";
    /// An edit needs key statistics that are not there.
    StatisticsMissing, FailedPrecondition, "run the command that the message names, then repeat the request";
    /// A layer has as many key statistics as are kept.
    TooManyStatistics, FailedPrecondition, "withdraw some with 'palimpsest stats delete'";
    /// The job has not succeeded.
    JobNotDone, FailedPrecondition, "wait until the job has succeeded, then repeat the request";
    /// Something that a version needs is not stored.
    VersionIncomplete, FailedPrecondition, "verify the store, and restore it from a backup";
    /// Worker and coordinator speak different protocol versions.
    ProtocolVersion, FailedPrecondition, "upgrade the older side";
    /// Bytes of an object do not begin where the stored part ends.
    WrongOffset, Aborted, "ask QueryObject and go on from there";
    /// A write ended before all bytes of its object came.
    ObjectIncomplete, Aborted, "ask QueryObject and go on from there";
    /// Someone else is writing the same object.
    ObjectBusy, Aborted, "ask QueryObject until the object is whole or its size stops growing, then go on from there";
    /// Another stream of the same worker took over.
    StreamReplaced, Aborted, "give every worker an id of its own, and let the newest stream live";
    /// The resource was changed since it was read.
    EtagMismatch, Aborted, "read it again and repeat the change";
    /// A read begins past the end.
    OffsetPastEnd, OutOfRange, "read from an offset inside the object";
    /// The owner has too many jobs or units open.
    TooMuchOpen, ResourceExhausted, "wait as long as RetryInfo says, or cancel some of the owner's jobs";
    /// The caller asks more often than is allowed.
    TooOften, ResourceExhausted, "ask again when RetryInfo says, and less often";
    /// The caller holds too many streams, connections or uploads at a time.
    TooMuchHeld, ResourceExhausted, "end some of the caller's streams, or wait until they have ended; the operator may raise serve.streams_per_principal or serve.max_connections";
    /// Another process is the worker of this name.
    WorkerIdTaken, AlreadyExists, "give every worker an id of its own (worker.id), or leave it out";
    /// No space is left on the coordinator's disk.
    DiskFull, ResourceExhausted, "free space on the coordinator's disk, then go on";
    /// An upload does not fit into the coordinator's quota.
    QuotaExceeded, ResourceExhausted, "remove what nothing needs with 'palimpsest store gc', or raise store.quota";
    /// A backup, or the removal of old files, goes on.
    StoreOccupied, Unavailable, "try again when it has ended";
    /// Stored bytes cannot be read, or are not those that were stored.
    StoredDataDamaged, DataLoss, "check the coordinator's disk, and restore or upload the data again";
    /// The bucket of the objects does not answer.
    BucketAway, Unavailable, "try again as RetryInfo says; if that goes on, the operator looks at the bucket's server and at store.endpoint";
    /// The server of the bucket refused what the coordinator asked of it.
    BucketRefused, FailedPrecondition, "the operator looks at store.bucket, store.region and store.credentials";
    /// The audit log is not what its last checkpoint says; nothing can be changed.
    AuditLogDamaged, DataLoss, "run 'palimpsest audit verify', and restore the store from a backup";
    /// The request came with no token or certificate, or with one that is not good.
    Unauthenticated, Unauthenticated, "show a token (client.token_file) or a certificate (client.certificate) that the coordinator knows";
    /// The caller's role does not allow the method.
    PermissionDenied, PermissionDenied, "ask somebody with one of the roles that the metadata name, or for such a role";
    /// The server is shutting down, or not ready yet.
    NotServing, Unavailable, "try again in a moment";
    /// The server failed in a way that is not the caller's doing.
    Internal, Internal, "look at the server's log; if it shows no cause, report the error";
}

impl fmt::Display for Reason {
    /// As on the wire: `DIGEST_MISMATCH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.variant().chars().enumerate() {
            if i > 0 && c.is_ascii_uppercase() {
                f.write_str("_")?;
            }
            write!(f, "{}", c.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

/// A status of this reason. `metadata` are the values involved, which programs can read.
pub fn status<const N: usize>(
    reason: Reason,
    message: impl Into<String>,
    metadata: [(&str, String); N],
) -> Status {
    Status::with_error_details(reason.code(), short(message), details(reason, metadata))
}

/// A message that fits the trailers of an answer, whatever of the request it repeats.
fn short(message: impl Into<String>) -> String {
    text::cut(&message.into(), MESSAGE_LIMIT)
}

fn details<const N: usize>(reason: Reason, metadata: [(&str, String); N]) -> ErrorDetails {
    let mut map: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), text::cut(&value, VALUE_LIMIT)))
        .collect();
    map.insert("remedy".to_owned(), reason.remedy().to_owned());
    ErrorDetails::with_error_info(reason.to_string(), DOMAIN, map)
}

/// One field of the request is wrong. `description` says what it is and what it should be.
pub fn invalid_argument(field: impl Into<String>, description: impl Into<String>) -> Status {
    invalid_fields([(field.into(), description.into())])
}

/// Several fields of the request are wrong.
pub fn invalid_fields(violations: impl IntoIterator<Item = (String, String)>) -> Status {
    let mut listed: Vec<FieldViolation> = Vec::new();
    let (mut bytes, mut more) = (0, 0);
    for (field, description) in violations {
        let field = text::cut(&field, VALUE_LIMIT);
        let description = text::cut(&description, VALUE_LIMIT);
        bytes += field.len() + description.len();
        if bytes > VIOLATIONS && !listed.is_empty() {
            more += 1;
            continue;
        }
        listed.push(FieldViolation::new(field, description));
    }
    if more > 0 {
        listed.push(FieldViolation::new("", format!("{more} more are wrong")));
    }
    let violations = listed;
    let message = violations
        .iter()
        .map(|violation| match violation.field.as_str() {
            "" => violation.description.clone(),
            field => format!("{field}: {}", violation.description),
        })
        .collect::<Vec<_>>()
        .join("; ");
    invalid(Reason::InvalidField, message, violations, [])
}

fn invalid<const N: usize>(
    reason: Reason,
    message: String,
    violations: Vec<FieldViolation>,
    metadata: [(&str, String); N],
) -> Status {
    let mut details = details(reason, metadata);
    details.set_bad_request(violations);
    Status::with_error_details(reason.code(), short(message), details)
}

/// The page token was not given out by this method.
pub fn invalid_page_token(token: &str) -> Status {
    let token = text::cut(token, VALUE_LIMIT);
    let message = format!(
        "page_token: {token:?} was not given out by this method; leave it empty to begin anew"
    );
    let violation = FieldViolation::new("page_token", message.as_str());
    invalid(Reason::InvalidPageToken, message, vec![violation], [])
}

/// No such resource: `models/gpt2-xl`.
pub fn not_found(resource: impl fmt::Display) -> Status {
    let resource = resource.to_string();
    status(
        Reason::NotFound,
        format!("{resource} does not exist"),
        [("resource", resource)],
    )
}

/// There is something of that name already, and it is not the same.
pub fn already_exists(reason: Reason, message: impl Into<String>) -> Status {
    debug_assert_eq!(reason.code(), Code::AlreadyExists);
    status(reason, message, [])
}

/// The request cannot be done as things stand; repeating it alone does not help.
pub fn failed_precondition(reason: Reason, message: impl Into<String>) -> Status {
    debug_assert_eq!(reason.code(), Code::FailedPrecondition);
    status(reason, message, [])
}

/// There is no room now; `RetryInfo` says when to ask again.
pub fn retry_later<const N: usize>(
    reason: Reason,
    message: impl Into<String>,
    after: std::time::Duration,
    metadata: [(&str, String); N],
) -> Status {
    let mut details = details(reason, metadata);
    details.set_retry_info(Some(after));
    Status::with_error_details(reason.code(), short(message), details)
}

/// Something else happened at the same time; to be read anew, and done again.
pub fn aborted(reason: Reason, message: impl Into<String>) -> Status {
    debug_assert_eq!(reason.code(), Code::Aborted);
    status(reason, message, [])
}

/// Stored bytes are damaged. The operator finds it in the log.
pub fn data_loss(error: &(dyn std::error::Error + 'static)) -> Status {
    let message = chain(error);
    tracing::error!(error = message, "stored data are damaged");
    status(Reason::StoredDataDamaged, message, [])
}

/// The server is shutting down, or not ready yet.
pub fn unavailable(message: impl Into<String>) -> Status {
    status(Reason::NotServing, message, [])
}

/// Not the caller's doing. The operator finds it in the log.
pub fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    let message = chain(error);
    tracing::error!(error = message, "a request failed");
    status(Reason::Internal, message, [])
}

/// The error and its causes, those left out that its own text repeats.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::objects;
    use std::collections::HashSet;

    #[test]
    fn reasons_are_distinct_upper_snake_case_and_have_a_remedy() {
        let names: HashSet<String> = Reason::ALL.iter().map(Reason::to_string).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(names.contains("DIGEST_MISMATCH"));
        for reason in Reason::ALL {
            // AIP-193: at most 63 characters of [A-Z][A-Z0-9_]+[A-Z0-9].
            let name = reason.to_string();
            assert!(name.len() <= 63 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
            assert!(!reason.remedy().is_empty());
            assert_ne!(reason.code(), Code::Ok);
        }
    }

    #[test]
    fn the_guide_has_a_paragraph_for_every_reason_and_for_nothing_else() {
        let text = include_str!("../../guide/when-it-fails.md");
        let head = |line: &str| Some(line.strip_prefix("- `")?.split_once("`: ")?.0.to_owned());
        let mut paragraphs: Vec<String> = text.lines().filter_map(head).collect();
        paragraphs.sort();
        let mut reasons: Vec<String> = Reason::ALL.iter().map(Reason::to_string).collect();
        reasons.sort();
        assert_eq!(paragraphs, reasons);
    }

    #[test]
    fn every_field_violation_can_be_read_by_a_program() {
        let status = invalid_fields([
            ("model.model_id".to_owned(), "is empty".to_owned()),
            ("size".to_owned(), "is 0".to_owned()),
        ]);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "model.model_id: is empty; size: is 0");
        let details = status.get_error_details();
        let fields: Vec<_> = details.bad_request().unwrap().field_violations.clone();
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[1].field, "size");
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_FIELD", "palimpsest")
        );
        assert_eq!(info.metadata["remedy"], Reason::InvalidField.remedy());
    }

    #[test]
    fn what_is_repeated_of_a_request_fits_the_trailers_of_an_answer() {
        let huge = "x".repeat(3 << 20);
        let many = (0..100_000).map(|n| (format!("facts[{n}]"), "it is empty".to_owned()));
        for status in [
            not_found(format!("jobs/{huge}")),
            invalid_argument("name", format!("'{huge}' is no name")),
            invalid_argument(huge.clone(), "it is wrong"),
            invalid_page_token(&huge),
            invalid_fields(many),
            retry_later(
                Reason::TooMuchOpen,
                huge.clone(),
                std::time::Duration::ZERO,
                [],
            ),
            aborted(Reason::EtagMismatch, huge.clone()),
        ] {
            let bytes = status.message().len() + status.details().len();
            assert!(bytes < 6 << 10, "{bytes} bytes of {}", status.message());
        }
        let two = [
            ("a".to_owned(), "one".to_owned()),
            ("b".to_owned(), "two".to_owned()),
        ];
        assert_eq!(invalid_fields(two).message(), "a: one; b: two");
    }

    #[test]
    fn an_objects_error_carries_its_values() {
        let digest = objects::Digest::of(b"x");
        let status = objects::Error::Offset {
            digest,
            offset: 9,
            committed: 5,
        };
        let status = Status::from(status);
        assert_eq!(status.code(), Code::Aborted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "WRONG_OFFSET");
        assert_eq!(info.metadata["committed_size"], "5");
        assert_eq!(info.metadata["digest"], digest.to_string());

        let bad = Status::from("xyz".parse::<objects::Digest>().unwrap_err());
        assert_eq!(bad.code(), Code::InvalidArgument);
        assert_eq!(
            bad.get_error_details()
                .bad_request()
                .unwrap()
                .field_violations[0]
                .field,
            "digest"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let error = objects::Error::Io {
            action: "write",
            path: "/data".into(),
            source: std::io::Error::other("the cable is loose"),
        };
        let message = internal(&error).message().to_owned();
        assert_eq!(message, "cannot write /data: the cable is loose");
        assert_eq!(not_found("models/x").message(), "models/x does not exist");
    }
}
