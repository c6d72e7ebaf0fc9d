//! Who asks: for the audit log, and for whoever decides what they may.

use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::status::{Reason, status};
use crate::audit::{EntryDraft, WHY_LIMIT};
use crate::auth::role::{self, Who};
use crate::auth::{Caller, Role};
use crate::client::PRINCIPAL;
use crate::coordinator::Coordinator;
use crate::objects::Digest;
use crate::version::Authorship;

/// Whom a request without a name comes from.
const NOBODY: &str = "anonymous";

/// Longest name that is kept.
const NAME_LIMIT: usize = 200;

/// The user that a client names.
pub fn principal(metadata: &MetadataMap) -> String {
    let named = metadata.get(PRINCIPAL).and_then(|name| name.to_str().ok());
    match named.map(str::trim) {
        Some(name) if !name.is_empty() => name.chars().take(NAME_LIMIT).collect(),
        _ => NOBODY.to_owned(),
    }
}

/// What the audit log is to say of a request.
pub fn draft<M: Message>(
    request: &Request<M>,
    action: &str,
    resource: &str,
    why: &str,
) -> EntryDraft {
    EntryDraft {
        principal: principal(request.metadata()),
        action: action.to_owned(),
        resource: resource.to_owned(),
        request_digest: Digest::of(&request.get_ref().encode_to_vec()).to_string(),
        why: why.to_owned(),
        ..EntryDraft::default()
    }
}

/// Who makes a version, as the entry of the request says, and when: by the clock of that entry.
pub fn authorship(draft: &EntryDraft, coordinator: &Coordinator) -> Authorship {
    Authorship {
        author: draft.principal.clone(),
        time: Some(coordinator.date()),
        why: draft.why.clone(),
        request_digest: draft.request_digest.clone(),
    }
}

/// A reason that somebody gives.
pub fn check_why(field: &str, why: &str) -> Result<(), Status> {
    if why.len() > WHY_LIMIT {
        let what = format!("it has {} bytes: {WHY_LIMIT} at most", why.len());
        return Err(super::status::invalid_argument(field, what));
    }
    Ok(())
}

/// Callers who are known own what they ask for themselves; admins may ask for others, whose share
/// of the workers it then takes.
pub fn check_owner<T>(request: &Request<T>, owner: &str) -> Result<(), Status> {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.role != Role::Admin && !["", &caller.principal].contains(&owner) => {
            let message = format!(
                "job.owner: {} is not an admin, and cannot ask for {owner}",
                caller.principal
            );
            let metadata = [
                ("owner", owner.to_owned()),
                ("roles", Role::Admin.to_string()),
            ];
            Err(status(Reason::PermissionDenied, message, metadata))
        }
        _ => Ok(()),
    }
}

/// What makes an edit, for [`check_may`].
pub const CREATE_EDIT: &str = "/palimpsest.v1.VersionService/CreateEdit";

/// A call that does what another method does is for those who may call that method.
pub fn check_may<T>(request: &Request<T>, method: &str) -> Result<(), Status> {
    let who = role::who(method).unwrap_or(Who::Roles(&[]));
    match request.extensions().get::<Caller>() {
        Some(caller) if !who.includes(caller.role) => {
            let message = format!(
                "{} is {}, and the job does what {method} does, which is not for that role",
                caller.principal,
                caller.role.described()
            );
            let metadata = [("method", method.to_owned())];
            Err(status(Reason::PermissionDenied, message, metadata))
        }
        _ => Ok(()),
    }
}

/// Gives what a change came to, after entering it into the audit log if it was refused. What is
/// done is entered by whoever does it, in the same step.
pub async fn answered<T>(
    coordinator: &Coordinator,
    draft: EntryDraft,
    answer: Result<T, Status>,
) -> Result<T, Status> {
    let status = match answer {
        Ok(answer) => return Ok(answer),
        Err(status) => status,
    };
    // What went wrong on the server is for its log: nobody was refused.
    let failed = matches!(
        status.code(),
        Code::Internal | Code::Unavailable | Code::Unknown | Code::DataLoss | Code::Cancelled
    );
    if !failed {
        record_refusal(coordinator, draft, &status).await;
    }
    Err(status)
}

/// Enters into the audit log that somebody was refused something.
pub async fn record_refusal(coordinator: &Coordinator, mut draft: EntryDraft, status: &Status) {
    let reason = status.get_details_error_info().map(|info| info.reason);
    draft.refusal = Some(match reason {
        Some(reason) => format!("{reason}: {}", status.message()),
        None => status.message().to_owned(),
    });
    if let Err(error) = coordinator.record(draft).await {
        tracing::error!(%error, "a refusal could not be entered into the audit log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_admins_ask_in_the_name_of_others() {
        let ask = |caller: Option<Role>, owner: &str| {
            let mut request = Request::new(());
            if let Some(role) = caller {
                let principal = "ada".to_owned();
                request.extensions_mut().insert(Caller { role, principal });
            }
            check_owner(&request, owner).is_ok()
        };
        assert!(ask(Some(Role::Submitter), "") && ask(Some(Role::Submitter), "ada"));
        assert!(!ask(Some(Role::Submitter), "bob") && !ask(Some(Role::Editor), "bob"));
        assert!(ask(Some(Role::Admin), "bob") && ask(None, "bob"));
    }
}
