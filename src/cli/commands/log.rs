//! `palimpsest log`: the versions of a model as a graph.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use serde_json::json;

use crate::cli::connection::{Connection, Need};
use crate::cli::{names, output};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::history::{Node, leads};
use crate::plot::text::visible;
use crate::proto::v1;
use crate::version::digest_of;

/// Flags of `log`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this version and its ancestors: a ref, v3, or a digest's beginning
    version: Option<String>,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// Most versions to show
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// One JSON object a version, the newest first; of more than 1,000 edits their number alone
    #[arg(long)]
    json: bool,
}

/// Prints the graph.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        print(&args, client).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn print(args: &Args, client: &Client) -> anyhow::Result<()> {
    let model = names::model(client, args.model.as_deref()).await?;
    let start = match &args.version {
        Some(text) => Some(names::get_version(client, &model, text).await?.name),
        None => None,
    };
    let versions = names::versions(client, &model, start.as_deref(), args.limit as usize).await?;
    let edits = edits_of(client, &model, &versions).await?;
    if args.json {
        return print_json(client, &model, &versions, &edits).await;
    }
    let mut named: HashMap<String, Vec<String>> = HashMap::new();
    for reference in client.all_refs(&model).await? {
        let id = digest_of(&reference.name).to_owned();
        let id = match reference.kind() {
            v1::RefKind::Tag => format!("tag: {id}"),
            _ => id,
        };
        named.entry(reference.version).or_default().push(id);
    }
    let nodes: Vec<Node<'_>> = versions
        .iter()
        .map(|version| Node {
            id: digest_of(&version.name),
            parent: Some(version.parent.as_str()).filter(|parent| !parent.is_empty()),
        })
        .collect();
    let colour = output::colour();
    let facts: HashMap<&str, String> = edits
        .iter()
        .map(|edit| (digest_of(&edit.name), names::fact(edit)))
        .collect();
    let mut rejected: HashMap<&str, Vec<&v1::Edit>> = HashMap::new();
    for edit in &edits {
        if edit.state() == v1::EditState::Rejected {
            rejected.entry(&edit.based_on).or_default().push(edit);
        }
    }
    for (found, lead) in versions.iter().zip(leads(&nodes, colour)) {
        let fact = facts
            .get(found.subject_edit.as_str())
            .map_or("", String::as_str);
        let edit = names::brief(&found.subject_edit);
        let what = match found.kind() {
            v1::VersionKind::Base => "the model as it was imported".to_owned(),
            v1::VersionKind::Edit => format!("edit {edit}: {fact}"),
            v1::VersionKind::Replace => format!(
                "edit {edit} in the place of {}, {}: {fact}",
                names::brief(&found.replaced_edit),
                without(&edits, &found.subject_edit)
            ),
            _ => format!("{} {edit}: {fact}", names::kind(found)),
        };
        let refs = named.get(&found.name).map_or(String::new(), |refs| {
            format!(" ({})", colour.bold(&visible(&refs.join(", "))))
        });
        if let Some(joint) = &lead.joint {
            output::styled(&format!("{joint}\n"))?;
        }
        let brief = visible(names::brief(&found.name));
        let head = format!("{}  v{} {brief}{refs}  ", lead.head, found.number);
        output::behind(&head, &what)?;
        let mut notes = Vec::new();
        if !found.author.is_empty() {
            let time = output::time(found.create_time.as_ref());
            notes.push(format!("{}, {time}", found.author));
        }
        if !found.why.is_empty() {
            notes.push(found.why.clone());
        }
        notes.extend(found.warnings.iter().map(|warning| format!("! {warning}")));
        // What was computed on this version, and taken by none.
        let rejected = rejected.get(found.name.as_str()).into_iter().flatten();
        notes.extend(rejected.map(|edit| {
            let id = names::brief(&edit.name);
            let gates = edit.failed_gates.join("; ");
            format!("! rejected edit {id}: {}: {gates}", names::fact(edit))
        }));
        for note in notes {
            output::behind(&format!("{}      ", lead.body), &note)?;
        }
    }
    Ok(())
}

/// Edits that a line of JSON names, at most: more are counted, for every version has them again.
const NAMED: u64 = 1000;

/// The edits that made these versions, and those that were computed on one of them and rejected.
/// As both come the newest first, what is older than all of the versions is not read.
async fn edits_of(
    client: &Client,
    model: &str,
    versions: &[v1::Version],
) -> anyhow::Result<Vec<v1::Edit>> {
    /// So few that are older, such as reverted ones, are asked for one by one.
    const FEW: usize = 100;
    let when = |time: Option<&prost_types::Timestamp>| time.map(|it| (it.seconds, it.nanos));
    let oldest = versions
        .iter()
        .map(|it| when(it.create_time.as_ref()))
        .min();
    let shown: HashSet<&str> = versions.iter().map(|it| it.name.as_str()).collect();
    let made_by = versions.iter().map(|it| it.subject_edit.as_str());
    let mut wanted: HashSet<&str> = made_by.filter(|edit| !edit.is_empty()).collect();
    let mut edits = Vec::new();
    let take = |edit: v1::Edit| {
        let older = Some(when(edit.create_time.as_ref())) < oldest;
        let rejected = edit.state() == v1::EditState::Rejected;
        if wanted.remove(digest_of(&edit.name))
            || (rejected && shown.contains(edit.based_on.as_str()))
        {
            edits.push(edit);
        }
        !older || wanted.len() > FEW
    };
    client.each_edit(model, take).await?;
    for edit in wanted {
        edits.push(names::edit(client, model, edit).await?);
    }
    Ok(edits)
}

/// A line a version, with its edits, as the version itself has them, and what its own edit asks
/// for.
async fn print_json(
    client: &Client,
    model: &str,
    versions: &[v1::Version],
    edits: &[v1::Edit],
) -> anyhow::Result<()> {
    let by_digest: HashMap<&str, &v1::Edit> = edits
        .iter()
        .map(|edit| (digest_of(&edit.name), edit))
        .collect();
    for listed in versions {
        // A list leaves out what a version is made of.
        let version = match listed.edit_count {
            0..=NAMED => names::whole_version(client, &listed.name).await?,
            _ => names::get_version(client, model, &listed.name).await?,
        };
        let mut line = names::to_json(&version);
        let edit = by_digest.get(version.subject_edit.as_str());
        line["requests"] = edit.map_or_else(|| json!([]), |edit| names::requests_to_json(edit));
        output::json(&line)?;
    }
    Ok(())
}

/// Which facts of the edit for which one stands it does not have.
fn without(edits: &[v1::Edit], digest: &str) -> String {
    let edit = edits.iter().find(|it| digest_of(&it.name) == digest);
    let left_out = edit.map_or(&[][..], |edit| edit.left_out.as_slice());
    match left_out {
        [] => "without some of its facts".to_owned(),
        [only] => format!("without '{}'", names::request(only)),
        [first, rest @ ..] => {
            let first = names::request(first);
            format!("without '{first}' and {} more", rest.len())
        }
    }
}
