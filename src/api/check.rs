//! Checks what a client asked for and fills in what it left open. A job that passes is complete:
//! nothing in it depends on a default that a later version might change.

mod editing;
mod evaluating;

use crate::causal::noise::Rule;
use crate::coordinator::Items;
use crate::datasets::corpus;
use crate::objects::{Digest, ObjectStore};
use crate::proto::v1::{self, job::Spec};

pub use self::editing::fill_gates;

/// A field and what is wrong with it.
pub type Violation = (String, String);

/// Most violations that one answer lists.
const SHOWN: usize = 20;
/// Longest prompt in bytes. No tokenizer makes fewer than one token of 64 bytes of text.
const PROMPT_LIMIT: usize = 1 << 20;
/// Most noise samples of a cell.
const SAMPLES_LIMIT: u32 = 10_000;
/// Most bytes of a corpus in one piece.
const RANGE_LIMIT: u64 = 16 << 20;
/// Longest request id and display name.
const NAME_LIMIT: usize = 200;

/// Whether a job has its parts (facts, prompts) in itself.
pub fn has_items(job: &v1::Job) -> bool {
    match &job.spec {
        Some(Spec::Trace(spec)) => !spec.facts.is_empty(),
        Some(Spec::Generate(spec)) => !spec.prompts.is_empty(),
        Some(Spec::Stats(spec)) => !spec.pieces.is_empty(),
        Some(Spec::Edit(spec)) => !spec.tasks.is_empty(),
        Some(Spec::Eval(spec)) => !spec.records.is_empty(),
        None => false,
    }
}

/// Completes a job in place. `items` are its parts (facts, prompts), which were taken out of it.
///
/// # Errors
/// Every field that is wrong, with its value and the remedy.
pub fn job(job: &mut v1::Job, items: &Items) -> Result<(), Vec<Violation>> {
    let mut wrong = Vec::new();
    for (field, text) in [("display_name", &job.display_name), ("owner", &job.owner)] {
        if text.len() > NAME_LIMIT {
            wrong.push((
                format!("job.{field}"),
                format!("it has {} bytes: {NAME_LIMIT} at most", text.len()),
            ));
        }
    }
    match &mut job.spec {
        Some(Spec::Trace(spec)) => trace(spec, items, &mut wrong),
        Some(Spec::Generate(spec)) => generate(spec, items, &mut wrong),
        Some(Spec::Stats(spec)) => stats(spec, items, &mut wrong),
        Some(Spec::Edit(spec)) => editing::edit(spec, items, &mut wrong),
        Some(Spec::Eval(spec)) => evaluating::eval(spec, items, &mut wrong),
        None => wrong.push((
            "job.spec".to_owned(),
            "it is missing: set 'trace', 'generate', 'stats', 'edit' or 'eval'".to_owned(),
        )),
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(SHOWN);
    wrong.truncate(SHOWN);
    if more > 0 {
        wrong.push(("job".to_owned(), format!("{more} more fields are wrong")));
    }
    Err(wrong)
}

/// A request id.
///
/// # Errors
/// When it is too long.
pub fn request_id(id: &str) -> Result<(), Violation> {
    if id.len() > NAME_LIMIT {
        let what = format!("it has {} bytes: {NAME_LIMIT} at most", id.len());
        return Err(("request_id".to_owned(), what));
    }
    Ok(())
}

/// An identifier that becomes part of a resource name.
///
/// # Errors
/// When it is not one.
pub fn identifier(field: &str, id: &str) -> Result<(), Violation> {
    if !crate::wire::names::is_identifier(id) {
        return Err((
            field.to_owned(),
            format!(
                "'{id}' is not an identifier: use up to 100 lower-case letters, digits, '.', '_' \
                 and '-', a letter or digit first"
            ),
        ));
    }
    Ok(())
}

fn prompt(field: &str, prompt: &str, wrong: &mut Vec<Violation>) {
    if prompt.is_empty() {
        wrong.push((
            field.to_owned(),
            "the prompt is empty: give some text".to_owned(),
        ));
    } else if prompt.len() > PROMPT_LIMIT {
        let what = format!(
            "the prompt has {} bytes: {PROMPT_LIMIT} at most",
            prompt.len()
        );
        wrong.push((field.to_owned(), what));
    }
}

fn dtype(value: &mut i32, wrong: &mut Vec<Violation>) {
    match v1::Dtype::try_from(*value) {
        Ok(v1::Dtype::Unspecified) => *value = v1::Dtype::F32 as i32,
        Ok(_) => {}
        Err(_) => wrong.push((
            "job.spec.dtype".to_owned(),
            format!("{value} is not a number format: use DTYPE_F32, DTYPE_BF16 or DTYPE_F16"),
        )),
    }
}

fn trace(spec: &mut v1::TraceSpec, items: &Items, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("job.trace.{name}");
    spec.fact_count = 0; // ours to say
    if items.is_empty() {
        wrong.push((
            field("facts"),
            "there are none: give at least one".to_owned(),
        ));
    }
    for n in 0..items.len() {
        let Some(fact) = items.message::<v1::Fact>(n) else {
            let what = "it is not a serialised Fact".to_owned();
            wrong.push((field(&format!("facts[{n}]")), what));
            continue;
        };
        prompt(&field(&format!("facts[{n}].prompt")), &fact.prompt, wrong);
        if fact
            .attribute
            .as_ref()
            .is_some_and(|it| it.trim().is_empty())
        {
            wrong.push((
                field(&format!("facts[{n}].attribute")),
                "the attribute is blank, which matches no answer: give the answer, or leave it out"
                    .to_owned(),
            ));
        }
        let subject = field(&format!("facts[{n}].subject"));
        if fact.subject.is_empty() {
            wrong.push((
                subject,
                "the subject is empty: name the words to corrupt".to_owned(),
            ));
        } else if !fact.prompt.contains(&fact.subject) {
            let what = format!(
                "the subject '{}' is not in the prompt '{}': write it as it stands there",
                shorten(&fact.subject),
                shorten(&fact.prompt)
            );
            wrong.push((subject, what));
        }
    }
    if spec.kinds.is_empty() {
        spec.kinds = vec![
            v1::Kind::Hidden as i32,
            v1::Kind::Mlp as i32,
            v1::Kind::Attn as i32,
        ];
    }
    for (n, &kind) in spec.kinds.iter().enumerate() {
        if !matches!(v1::Kind::try_from(kind), Ok(kind) if kind != v1::Kind::Unspecified) {
            wrong.push((
                field(&format!("kinds[{n}]")),
                format!("{kind} is not a kind"),
            ));
        } else if spec.kinds[..n].contains(&kind) {
            wrong.push((
                field(&format!("kinds[{n}]")),
                "the kind is named twice".to_owned(),
            ));
        }
    }
    if spec.noise.is_empty() {
        spec.noise = Rule::default().to_string();
    }
    match spec.noise.parse::<Rule>() {
        Ok(rule) => {
            noise_corpus(rule, spec.noise_corpus.as_ref(), wrong);
            spec.noise = rule.to_string();
        }
        Err(error) => wrong.push((field("noise"), error.to_string())),
    }
    if spec.samples == 0 {
        spec.samples = 10;
    } else if spec.samples > SAMPLES_LIMIT {
        let what = format!("{} is too many: {SAMPLES_LIMIT} at most", spec.samples);
        wrong.push((field("samples"), what));
    }
    spec.seed.get_or_insert(1);
    if spec.window == 0 {
        spec.window = 10;
    }
    match v1::Engine::try_from(spec.engine) {
        Ok(v1::Engine::Unspecified) => spec.set_engine(v1::Engine::Exact),
        Ok(_) => {}
        Err(_) => {
            let what = format!(
                "{} is not an engine: use ENGINE_EXACT or ENGINE_PLAIN",
                spec.engine
            );
            wrong.push((field("engine"), what));
        }
    }
    match v1::Compat::try_from(spec.compat) {
        Ok(v1::Compat::Unspecified) => spec.set_compat(v1::Compat::None),
        Ok(_) => {}
        Err(_) => {
            let what = format!(
                "{} is not a reading of severed paths: use COMPAT_NONE or COMPAT_PAPER_CODE",
                spec.compat
            );
            wrong.push((field("compat"), what));
        }
    }
    dtype(&mut spec.dtype, wrong);
}

/// A rule and the corpus that it draws from, or from which it does not.
fn noise_corpus(rule: Rule, named: Option<&v1::Corpus>, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("job.trace.noise_corpus{name}");
    match named {
        None if rule.needs_corpus() => {
            let what = format!(
                "noise '{rule}' draws from the embeddings' covariance over a corpus, and none is \
                 named: name one ('palimpsest trace --noise-corpus FILE'), or use a number, s<k> \
                 or u<a>"
            );
            wrong.push((field(""), what));
        }
        Some(_) if !rule.needs_corpus() => {
            let what =
                format!("noise '{rule}' draws from no corpus: leave it out, or use m or t<df>");
            wrong.push((field(""), what));
        }
        Some(named) => corpus_object(&field(""), named, wrong),
        None => {}
    }
}

fn corpus_object(field: &str, named: &v1::Corpus, wrong: &mut Vec<Violation>) {
    if let Err(error) = named.digest.parse::<Digest>() {
        wrong.push((format!("{field}.digest"), error.to_string()));
    }
    if named.size == 0 || named.size > corpus::LARGEST_FILE {
        let what = format!(
            "{} bytes: give the object's size, 1 to {}",
            named.size,
            corpus::LARGEST_FILE
        );
        wrong.push((format!("{field}.size"), what));
    }
}

/// The objects that a checked job names are stored, so that no worker looks for them in vain.
///
/// # Errors
/// The field that names what is not there.
pub fn objects(job: &v1::Job, stored: &ObjectStore) -> Result<(), Vec<Violation>> {
    let (field, named) = match &job.spec {
        Some(Spec::Trace(trace)) => ("job.trace.noise_corpus", &trace.noise_corpus),
        Some(Spec::Stats(stats)) => ("job.stats.corpus", &stats.corpus),
        _ => return Ok(()),
    };
    let Some(named) = named else {
        return Ok(());
    };
    let found = named
        .digest
        .parse()
        .and_then(|digest| stored.durable_size(&digest));
    let what = match found {
        Ok(Some(size)) if size == named.size => return Ok(()),
        Ok(Some(size)) => format!("the corpus has {size} bytes, not {}", named.size),
        Ok(None) => format!(
            "there is no object {}: write it with ObjectService first",
            named.digest
        ),
        Err(error) => error.to_string(),
    };
    Err(vec![(field.to_owned(), what)])
}

fn generate(spec: &mut v1::GenerateSpec, items: &Items, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("job.generate.{name}");
    if items.is_empty() {
        wrong.push((
            field("prompts"),
            "there are none: give at least one".to_owned(),
        ));
    }
    for n in 0..items.len() {
        let text = items.text(n).unwrap_or_default();
        prompt(&field(&format!("prompts[{n}]")), text, wrong);
    }
    if spec.max_tokens == 0 {
        spec.max_tokens = 32;
    }
    if !(spec.temperature.is_finite() && spec.temperature >= 0.0) {
        let what = format!("{} is not a temperature: use 0 or more", spec.temperature);
        wrong.push((field("temperature"), what));
    }
    dtype(&mut spec.dtype, wrong);
}

fn stats(spec: &mut v1::StatsSpec, items: &Items, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("job.stats.{name}");
    if items.is_empty() {
        wrong.push((
            field("pieces"),
            "there are none: give texts, or tokens to draw".to_owned(),
        ));
    }
    for n in 0..items.len() {
        let piece: v1::StatsUnit = items.message(n).unwrap_or_default();
        let ways = [
            !piece.documents.is_empty(),
            piece.self_sample > 0,
            piece.range.is_some(),
        ];
        if ways.into_iter().filter(|&way| way).count() != 1 {
            let what = "give texts, where they lie, or tokens to draw from the model: one of these";
            wrong.push((field(&format!("pieces[{n}]")), what.to_owned()));
        }
        if piece.self_sample > crate::stats::MOST_DRAWN {
            let what = format!(
                "{} tokens are too many for one piece: {} at most, give more pieces",
                piece.self_sample,
                crate::stats::MOST_DRAWN
            );
            wrong.push((field(&format!("pieces[{n}].self_sample")), what));
        }
        if let Some(range) = &piece.range
            && let Err(what) = part_of(range, spec.corpus.as_ref())
        {
            wrong.push((field(&format!("pieces[{n}].range")), what));
        }
    }
    if let Some(named) = &spec.corpus {
        corpus_object(&field("corpus"), named, wrong);
    }
    spec.layers.sort_unstable();
    spec.layers.dedup();
    if spec.layers.is_empty() {
        wrong.push((
            field("layers"),
            "there are none: give at least one".to_owned(),
        ));
    }
    if spec.length == 0 {
        spec.length = 256;
    }
    dtype(&mut spec.dtype, wrong);
}

/// Whether a range is a part of the corpus, and no more than a worker reads at a time.
fn part_of(range: &v1::stats_unit::Range, corpus: Option<&v1::Corpus>) -> Result<(), String> {
    let Some(corpus) = corpus else {
        return Err("there is no corpus that it is of: name it in job.stats.corpus".to_owned());
    };
    let end = range.offset.checked_add(range.length);
    if end.is_none_or(|end| end > corpus.size) {
        return Err(format!(
            "{} bytes from {} on end behind the corpus, which has {}",
            range.length, range.offset, corpus.size
        ));
    }
    if range.length == 0 || range.length > RANGE_LIMIT {
        return Err(format!("{} bytes: give 1 to {RANGE_LIMIT}", range.length));
    }
    match range.digest.parse::<Digest>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The beginning of a text, for a message.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sweep(prompt: &str, subject: &str, noise: &str) -> v1::Job {
        let fact = v1::Fact {
            prompt: prompt.to_owned(),
            subject: subject.to_owned(),
            ..Default::default()
        };
        let spec = v1::TraceSpec {
            facts: vec![fact],
            noise: noise.to_owned(),
            ..Default::default()
        };
        v1::Job {
            spec: Some(Spec::Trace(spec)),
            ..Default::default()
        }
    }

    fn with_corpus(noise: &str, digest: &str, size: u64) -> v1::Job {
        let mut job = sweep("a", "a", noise);
        if let Some(Spec::Trace(spec)) = &mut job.spec {
            let digest = digest.to_owned();
            spec.noise_corpus = Some(v1::Corpus { digest, size });
        }
        job
    }

    #[test]
    fn a_corpus_that_is_not_stored_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path()).unwrap();
        let digest = store.put(b"\"a\"\n").unwrap().to_string();
        objects(&sweep("a", "a", "0.3"), &store).unwrap();
        objects(&with_corpus("m", &digest, 4), &store).unwrap();
        let wrong = |digest: &str, size| {
            objects(&with_corpus("m", digest, size), &store).unwrap_err()[0].clone()
        };
        assert!(wrong(&digest, 5).1.contains("has 4 bytes, not 5"));
        let (field, what) = wrong(&"0".repeat(64), 4);
        assert_eq!(field, "job.trace.noise_corpus");
        assert!(what.contains("there is no object 000"), "{what}");
    }

    fn check(job: &mut v1::Job) -> Result<(), Vec<Violation>> {
        let items = crate::coordinator::pack(job);
        super::job(job, &items)
    }

    #[test]
    fn what_is_left_open_is_filled_in_with_the_published_settings() {
        let mut job = sweep("a b", "a", "");
        check(&mut job).unwrap();
        let Some(Spec::Trace(spec)) = job.spec else {
            panic!()
        };
        assert_eq!(
            (spec.kinds.as_slice(), spec.noise.as_str()),
            (&[1, 2, 3][..], "s3")
        );
        assert_eq!((spec.samples, spec.seed, spec.window), (10, Some(1), 10));
        assert_eq!(
            (spec.engine(), spec.dtype(), spec.compat()),
            (v1::Engine::Exact, v1::Dtype::F32, v1::Compat::None)
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value_and_the_remedy() {
        for (mut job, field, what) in [
            (
                sweep("The Louvre", "Prado", ""),
                "job.trace.facts[0].subject",
                "'Prado' is not in the prompt 'The Louvre'",
            ),
            (
                sweep("The Louvre", "", ""),
                "job.trace.facts[0].subject",
                "empty",
            ),
            (sweep("", "x", ""), "job.trace.facts[0].prompt", "empty"),
            (sweep("a", "a", "loud"), "job.trace.noise", "loud"),
            (
                sweep("a", "a", "t5"),
                "job.trace.noise_corpus",
                "noise 't5' draws from the embeddings' covariance over a corpus",
            ),
            (
                with_corpus("0.3", &"0".repeat(64), 3),
                "job.trace.noise_corpus",
                "noise '0.3' draws from no corpus",
            ),
            (
                with_corpus("m", "ab", 3),
                "job.trace.noise_corpus.digest",
                "ab",
            ),
            (
                with_corpus("m", &"0".repeat(64), 0),
                "job.trace.noise_corpus.size",
                "0 bytes",
            ),
            (v1::Job::default(), "job.spec", "missing"),
        ] {
            let wrong = check(&mut job).unwrap_err();
            assert!(
                wrong.iter().any(|(f, w)| f == field && w.contains(what)),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_long_list_of_violations_is_cut() {
        let mut job = sweep("a", "b", "");
        let Some(Spec::Trace(spec)) = &mut job.spec else {
            panic!()
        };
        spec.facts = vec![spec.facts[0].clone(); 1000];
        assert_eq!(check(&mut job).unwrap_err().len(), SHOWN + 1);
    }

    #[test]
    fn identifiers_are_safe_in_names_and_paths() {
        for good in ["smollm2-135m", "a", "7b.v1_x"] {
            identifier("model_id", good).unwrap();
        }
        for bad in ["", "A", "a/b", "..", "-a", &"a".repeat(101), "ä"] {
            assert!(identifier("model_id", bad).is_err(), "{bad}");
        }
    }
}
