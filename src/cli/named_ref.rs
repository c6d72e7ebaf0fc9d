//! A tag or a branch, made or moved.

use super::change::ChangeArgs;
use super::names;
use crate::client::Client;
use crate::proto::v1;

/// Flags of `tag` and `branch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name: lower-case letters, digits, '.', '_' and '-'
    name: String,
    /// The version it points at
    #[arg(default_value = "main")]
    version: String,
    /// Move it if it is there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub common: ChangeArgs,
}

/// Makes, or moves, it, and says where it points.
///
/// # Errors
/// The coordinator's refusal.
pub async fn put(client: &Client, args: &Args, kind: v1::RefKind) -> anyhow::Result<()> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let asked = v1::Ref {
        name: format!("{model}/refs/{}", args.name),
        version: names::version(&model, &args.version),
        kind: kind as i32,
        why: args.common.why.clone().unwrap_or_default(),
        ..Default::default()
    };
    let refs = client.all_refs(&model).await?;
    let now = if args.force && refs.iter().any(|found| found.name == asked.name) {
        let request = v1::UpdateRefRequest {
            r#ref: Some(asked),
            force: true,
        };
        client
            .versions()
            .update_ref(request)
            .await?
            .into_inner()
            .r#ref
    } else {
        let request = v1::CreateRefRequest {
            parent: model,
            ref_id: args.name.clone(),
            r#ref: Some(asked),
        };
        client
            .versions()
            .create_ref(request)
            .await?
            .into_inner()
            .r#ref
    };
    let now = now.unwrap_or_default();
    say!("{} points at {}", args.name, names::brief(&now.version));
    show!("{}", now.version)?;
    Ok(())
}
