//! `palimpsest eval --along`: how what was written holds while more is written.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::asked::{Data, of_choices, of_texts, records, set_of, with_object};
use super::flags::Args;
use crate::cli::connection::Connection;
use crate::cli::results::{self, Evaluation, Line};
use crate::cli::{follow, names, output, submit};
use crate::client::Client;
use crate::datasets::edits::Rewrite;
use crate::datasets::evaluation::{Dataset, Record, Set};
use crate::eval::{Mean, Metric};
use crate::plot::table::{Align, Table};
use crate::plot::{Across, Curves, Series};
use crate::proto::v1;
use crate::version::digest_of;

/// Most versions that are measured.
const POINTS: usize = 200;
/// Measures of facts that are drawn; of tasks and tests all are.
const DRAWN: [&str; 9] = [
    "ES",
    "PS",
    "NS",
    "EA",
    "PA",
    "NA",
    "E CONTAINS",
    "P CONTAINS",
    "N CONTAINS",
];

/// Refuses what cannot be given so.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    if args.format.npz.is_some() || args.format.by_relation {
        bail!("--along gives a table, --json and --svg: leave --npz and --by-relation out");
    }
    if args.job.detach {
        bail!("--along asks for one evaluation after another: leave --detach out");
    }
    if args.job.receipt.is_some() {
        bail!(
            "--along asks for one evaluation after another: 'palimpsest job receipt' gives each one's"
        );
    }
    Ok(())
}

/// A version on the way, the first that has so many facts.
struct Point {
    version: v1::Version,
    facts: usize,
}

/// What was measured of it.
struct Measured {
    point: Point,
    lines: Vec<Line>,
    /// The largest change of a matrix, in that matrix's norm.
    norm: f64,
}

/// Measures versions on the way to the one that was asked for, and shows what they gave.
pub(super) async fn measure(
    args: &Args,
    every: u64,
    spec: v1::EvalSpec,
    mut data: Data,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client();
    let model = args.job.model(client).await?;
    let points = points(client, &model, &args.job.version, every as usize).await?;
    let mut spoiled = 0;
    if let Data::Facts(data) = &mut data {
        spoiled = data.leave_out_spoiled();
    }
    let against = args.against.as_deref().unwrap_or("v0");
    let against = names::version(&model, against);
    let mut all = Vec::with_capacity(points.len());
    for point in points {
        let mut spec = v1::EvalSpec {
            against: against.clone(),
            ..spec.clone()
        };
        match &data {
            Data::Facts(data) => {
                let written = written(client, &point.version, data).await?;
                let taken = spread(&written, args.limit);
                spec.set = set_of(data) as i32;
                spec.records = records(args, taken);
                spec.free_generation = !args.no_generation && data.set != Set::Tests;
                spec.spoiled = spoiled;
            }
            Data::Texts(texts) => of_texts(&mut spec, texts.clone()),
            Data::Choices(choices) => of_choices(&mut spec, choices),
        }
        let facts = point.facts;
        if spec.records.is_empty() {
            let version = names::brief(&point.version.name);
            bail!(
                "none of the records is among the {facts} facts of {version}: give the file that was written"
            );
        }
        say!("{facts} facts written: {} records", spec.records.len());
        let spec = with_object(spec, client).await?.into();
        let job = v1::Job {
            version: point.version.name.clone(),
            display_name: format!("after {facts} facts"),
            ..args
                .job
                .job(&model, spec, submit::sweep_priority(connection))
        };
        let job = submit::create(client, submit::request(job)).await?;
        let ended = follow::to_end(client, &job.name, connection.is_embedded()).await?;
        let Some(ended) = ended else {
            return Ok(ExitCode::from(130));
        };
        let (ended, found) = results::results(client, &ended.name).await?;
        if ended.state() != v1::JobState::Succeeded {
            bail!("{}: 'palimpsest job show' says why", ended.name);
        }
        let lines = Evaluation::new(&ended, &found, |_| String::new())?.lines();
        let norm = change(client, &against, &point.version.name).await?;
        let measured = Measured { point, lines, norm };
        if args.format.json {
            measured.json()?;
        }
        all.push(measured);
    }
    if let Some(folder) = &args.format.svg {
        let curves = curves(&all);
        results::make(folder)?;
        for (name, curves) in &curves {
            results::write(folder, (*name).to_owned(), curves.to_svg())?;
        }
        say!("{} figures in {}", curves.len(), folder.display());
    }
    if !args.format.json {
        output::print_table(&table(&all))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first versions that have `every` facts, twice as many, and so on, up to the one that was
/// asked for, which is taken where none has so many. One that passes several is measured once.
async fn points(
    client: &Client,
    model: &str,
    version: &str,
    every: usize,
) -> anyhow::Result<Vec<Point>> {
    let tip = names::get_version(client, model, version).await?;
    let mut facts_of: HashMap<String, usize> = HashMap::new();
    let count = |edit: v1::Edit| {
        facts_of.insert(digest_of(&edit.name).to_owned(), edit.requests.len());
        true
    };
    client.each_edit(&tip.name, count).await?;
    let mut history = names::versions(client, model, Some(&tip.name), usize::MAX).await?;
    history.reverse();
    let (mut points, mut facts, mut next) = (Vec::new(), 0, every);
    for version in history {
        let edit = &version.subject_edit;
        let changed = match facts_of.get(edit) {
            _ if edit.is_empty() => 0,
            Some(&changed) => changed,
            // It was taken back on the way.
            None => {
                let found = names::edit(client, model, edit).await?.requests.len();
                facts_of.insert(edit.clone(), found);
                found
            }
        };
        facts = match version.kind() {
            v1::VersionKind::Edit | v1::VersionKind::CherryPick => facts + changed,
            v1::VersionKind::Revert => facts.saturating_sub(changed),
            _ => facts,
        };
        if facts >= next {
            points.push(Point { version, facts });
            next = (facts / every + 1) * every;
        }
    }
    if points.is_empty() {
        if facts == 0 {
            bail!("{version} has no edits: name a version that has, with --ref");
        }
        points.push(Point {
            version: tip,
            facts,
        });
    }
    if points.len() > POINTS {
        bail!(
            "--along {every}: {} versions would be measured, {POINTS} at most: take more facts a step",
            points.len()
        );
    }
    Ok(points)
}

/// The largest change of a matrix between two versions, in norms of the matrix of the model as it was
/// imported.
async fn change(client: &Client, left: &str, right: &str) -> anyhow::Result<f64> {
    let request = v1::CompareVersionsRequest {
        left: left.to_owned(),
        right: right.to_owned(),
        page_size: 1, // matrices come with the first page
        page_token: String::new(),
    };
    let found = client.versions().compare_versions(request).await?;
    let matrices = found.into_inner().matrices;
    let shares =
        (matrices.iter()).map(|it| it.difference_norm / it.base_norm.max(f64::MIN_POSITIVE));
    Ok(shares.fold(0.0, f64::max))
}

/// The records whose facts a version has.
async fn written<'a>(
    client: &Client,
    version: &v1::Version,
    data: &'a Dataset,
) -> anyhow::Result<Vec<&'a Record>> {
    let mut facts: HashSet<(String, String, String)> = HashSet::new();
    let take = |edit: v1::Edit| {
        let each = edit.requests.into_iter();
        facts.extend(each.map(|fact| {
            let target = fact.target_new.trim().to_owned();
            (fact.prompt, fact.subject, target)
        }));
        true
    };
    client.each_edit(&version.name, take).await?;
    let has = |fact: &Rewrite| {
        let target = fact.target_new.trim().to_owned();
        facts.contains(&(fact.prompt.clone(), fact.subject.clone(), target))
    };
    let whole = |record: &&Record| has(&record.rewrite) && record.together.iter().all(has);
    Ok(data.records.iter().filter(whole).collect())
}

/// At most so many, from all over the list.
fn spread<'a, T>(all: &[&'a T], most: Option<u64>) -> Vec<&'a T> {
    let count = most.map_or(all.len(), |most| all.len().min(most as usize));
    (0..count).map(|n| all[n * all.len() / count]).collect()
}

impl Measured {
    fn json(&self) -> anyhow::Result<()> {
        for line in &self.lines {
            let version = &self.point.version;
            output::json(&json!({
                "facts": self.point.facts, "version": version.name, "measure": line.name,
                "records": line.means.first().map_or(0, |mean| mean.count),
                "against": line.means.first().map(results::mean_json),
                "measured": line.means.last().map(results::mean_json),
                "change": line.change.as_ref().map(results::mean_json),
            }))?;
        }
        output::json(&json!({
            "facts": self.point.facts, "version": self.point.version.name, "measure": "norm",
            "measured": { "mean": self.norm },
        }))?;
        Ok(())
    }

    fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.name == name)
    }
}

/// The names of the measures, as the first version has them.
fn names_of(all: &[Measured]) -> Vec<&str> {
    let first = all.first().map_or(&[][..], |first| &first.lines);
    first.iter().map(|line| line.name.as_str()).collect()
}

/// A row a version: the largest change of a matrix in that matrix's norm; each measure with half of
/// its interval, and beside it what it was without the edits.
fn table(all: &[Measured]) -> Table {
    let names = names_of(all);
    let mut head = vec![
        ("FACTS", Align::Right),
        ("VERSION", Align::Left),
        ("RECORDS", Align::Right),
        ("NORM", Align::Right),
    ];
    for name in &names {
        head.extend([(*name, Align::Right), ("WITHOUT", Align::Right)]);
    }
    let mut table = Table::new(&head);
    for measured in all {
        let records = measured.lines.first().and_then(|line| line.means.first());
        let mut cells = vec![
            measured.point.facts.to_string(),
            format!("v{}", measured.point.version.number),
            records.map_or(0, |mean| mean.count).to_string(),
            format!("{:.2}", measured.norm),
        ];
        for name in &names {
            let (mut after, mut before) = (String::new(), String::new());
            if let Some(line) = measured.line(name) {
                let tell = |mean: &Mean| {
                    let half = mean.half.map(|half| format!(" ± {:.1}", half * line.scale));
                    format!("{:.1}{}", mean.mean * line.scale, half.unwrap_or_default())
                };
                after = line.means.last().map(tell).unwrap_or_default();
                before = line.means.first().map(tell).unwrap_or_default();
            }
            cells.extend([after, before]);
        }
        table.row(cells);
    }
    table
}

/// Curves over the facts written so far, with what the unedited version gives.
fn curves(all: &[Measured]) -> Vec<(&'static str, Curves)> {
    let names = names_of(all);
    let curves = |title: &str, y_label: &str, series: Vec<Series>| Curves {
        title: title.to_owned(),
        across: Across::Counted {
            what: "facts",
            numbers: all.iter().map(|it| it.point.facts).collect(),
        },
        x_label: "facts written so far".to_owned(),
        y_label: y_label.to_owned(),
        series,
    };
    let of = |name: &str, title: String, pick: fn(&Line) -> Option<&Mean>| {
        let means = all.iter().map(|it| it.line(name).and_then(pick));
        let means: Vec<Option<&Mean>> = means.collect();
        let number = |it: Option<f64>| it.map_or(f32::NAN, |it| it as f32);
        let halves = means.iter().map(|it| number(it.and_then(|it| it.half)));
        Series {
            name: title,
            mean: means
                .iter()
                .map(|it| number(it.map(|it| it.mean)))
                .collect(),
            half_width: halves.collect(),
            kind: None,
        }
    };
    let mut drawn = Vec::new();
    let known =
        |name: &str| name.parse::<Metric>().is_ok() || name == "S" || name.starts_with("PPL");
    let scores = names
        .iter()
        .filter(|name| DRAWN.contains(name) || !known(name));
    let scores: Vec<Series> = scores
        .flat_map(|name| {
            let unedited = format!("{name}, unedited");
            [
                of(name, (*name).to_owned(), |line| line.means.last()),
                of(name, unedited, |line| line.means.first()),
            ]
        })
        .collect();
    if !scores.is_empty() {
        let title = "All facts written so far";
        drawn.push(("along.svg", curves(title, "facts that hold", scores)));
    }
    if names.contains(&"PPL") {
        let ratio = of("PPL", "other texts".to_owned(), |line| line.change.as_ref());
        let title = "Perplexity, in that of the unedited model";
        drawn.push(("along_perplexity.svg", curves(title, "ratio", vec![ratio])));
    }
    drawn
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn measured(facts: usize, es: f64) -> Measured {
        let mean = |mean: f64| Mean {
            count: 40,
            mean,
            half: Some(0.05),
        };
        Measured {
            point: Point {
                version: v1::Version {
                    number: facts as u64,
                    ..Default::default()
                },
                facts,
            },
            lines: vec![Line {
                name: "ES".to_owned(),
                scale: 100.0,
                means: vec![mean(0.2), mean(es)],
                change: Some(mean(es - 0.2)),
            }],
            norm: 0.314,
        }
    }

    #[test]
    fn what_was_written_is_drawn_and_told_with_what_was_before() {
        // A batch of many passes several points at once.
        let all = [measured(100, 1.0), measured(650, 0.9)];
        let drawn = curves(&all);
        assert_eq!(drawn.len(), 1);
        let svg = drawn[0].1.to_svg().unwrap();
        for said in [">100<", ">650<", "ES, unedited"] {
            assert!(svg.contains(said), "{said}: {svg}");
        }
        let told = table(&all).render(None, crate::plot::Colour::Never);
        assert!(
            told.contains("90.0 ± 5.0") && told.contains("20.0 ± 5.0") && told.contains("0.31"),
            "{told}"
        );
    }

    #[test]
    fn records_are_taken_from_all_over_the_list() {
        let all: Vec<u32> = (0..10).collect();
        let all: Vec<&u32> = all.iter().collect();
        assert_eq!(spread(&all, Some(3)), [&0, &3, &6]);
        assert_eq!(spread(&all, Some(20)).len(), 10);
        assert_eq!(spread(&all, None).len(), 10);
        assert!(spread::<u32>(&[], Some(3)).is_empty());
    }
}
