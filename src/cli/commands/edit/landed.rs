//! What became of an edit that its job has ended with.

use crate::cli::{change, names};
use crate::client::Client;
use crate::proto::v1;

/// Says whether a branch took an edit, and which gates it failed where it did not; for people, the
/// version too. Gives whether the branch took it.
pub(super) async fn say(
    client: &Client,
    outcome: &v1::EditOutcome,
    branch: &str,
    json: bool,
) -> anyhow::Result<bool> {
    let edit = outcome.edit.clone().unwrap_or_default();
    let brief = names::brief(&edit.name);
    if outcome.version.is_empty() {
        say!("edit {brief} is rejected, {branch} stays where it was:");
        for gate in &edit.failed_gates {
            say!("  {gate}");
        }
        return Ok(false);
    }
    say!("edit {brief}");
    if !json {
        let request = v1::GetVersionRequest {
            name: outcome.version.clone(),
            without_edits: true,
        };
        let version = client.versions().get_version(request).await?.into_inner();
        change::say(&version.version.unwrap_or_default(), branch)?;
    }
    Ok(true)
}
