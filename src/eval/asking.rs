//! Asking a model.

use super::{Answer, Choice, Error, ProbeKind, Question, Scored, TEXT_TOKENS};
use crate::model::{self, Continuation, Model, Sampling, continue_greedily, score};

/// Choose each token among so many.
const TOP_K: usize = 5;

/// Asks a model every question. All of them are run together; what two objects after one prompt
/// have in common is run once.
///
/// # Errors
/// [`Error::Prompt`] for a prompt or an object that does not fit the model, naming it; [`Error::Model`].
pub fn ask(model: &Model, questions: &[Question]) -> Result<Vec<Answer>, Error> {
    let mut asked = Vec::new();
    let mut numbers = [0; 3];
    for question in questions {
        let number = &mut numbers[question.kind as usize];
        *number += 1;
        let wrong = |source: model::Error| Error::Prompt {
            what: match question.kind {
                ProbeKind::Rewrite => "the prompt".to_owned(),
                ProbeKind::Paraphrase => format!("paraphrase {number}"),
                ProbeKind::Neighbour => format!("neighbour {number}"),
            },
            prompt: question.prompt.clone(),
            source: Box::new(source),
        };
        for object in [&question.new, &question.old].into_iter().flatten() {
            let tokenizer = model.tokenizer();
            let continuation = tokenizer.continuation(&question.prompt, object);
            let continuation = continuation.map_err(wrong)?;
            // Nothing is read behind the last token of the object.
            let tokens = continuation.prompt.len() + continuation.target.len() - 1;
            let context = model.config().context;
            if tokens > context {
                return Err(wrong(model::Error::Context { tokens, context }));
            }
            asked.push(continuation);
        }
    }
    let scores = score(model, &asked)?;
    let mut scores = scores.iter();
    let mut next = || scores.next().map(scored_as);
    let answer = |question: &Question| Answer {
        kind: question.kind,
        new: question.new.as_ref().and_then(|_| next()),
        old: question.old.as_ref().and_then(|_| next()),
    };
    Ok(questions.iter().map(answer).collect())
}

fn scored_as(score: &model::Score) -> Scored {
    let likeliest = score.likeliest.iter();
    Scored {
        nll: score.nll(),
        tokens: score.likeliest.len(),
        likeliest: likeliest.filter(|&&likeliest| likeliest).count(),
    }
}

/// Asks a model what it thinks of each answer of a choice.
///
/// # Errors
/// [`Error::Prompt`] for a prompt or an answer that does not fit the model; [`Error::Model`].
pub fn choose(model: &Model, choice: &Choice) -> Result<Vec<Scored>, Error> {
    Ok(score(model, &answers(model, choice)?)?
        .iter()
        .map(scored_as)
        .collect())
}

/// Looks whether a choice fits a model, without asking it.
///
/// # Errors
/// [`Error::Prompt`], as of [`choose`].
pub fn check_choice(model: &Model, choice: &Choice) -> Result<(), Error> {
    answers(model, choice).map(drop)
}

fn answers(model: &Model, choice: &Choice) -> Result<Vec<Continuation>, Error> {
    let wrong = |source: model::Error| Error::Prompt {
        what: "the prompt".to_owned(),
        prompt: choice.prompt.clone(),
        source: Box::new(source),
    };
    let context = model.config().context;
    let asked = choice.choices.iter().map(|answer| {
        let asked = model.tokenizer().continuation(&choice.prompt, answer);
        let asked = asked.map_err(wrong)?;
        match asked.prompt.len() + asked.target.len() - 1 {
            tokens if tokens > context => Err(wrong(model::Error::Context { tokens, context })),
            _ => Ok(asked),
        }
    });
    asked.collect()
}

/// Continues prompts by their likeliest tokens, each with the most that it may have, and gives what
/// was added. `go_on` is asked at every token.
///
/// # Errors
/// [`Error::Cancelled`] when `go_on` says no; [`Error::Prompt`] for a prompt that does not fit the model;
/// [`Error::Model`].
pub fn answer_freely(
    model: &Model,
    prompts: &[(&str, usize)],
    mut go_on: impl FnMut() -> bool,
) -> Result<Vec<String>, Error> {
    let tokenizer = model.tokenizer();
    let context = model.config().context;
    let ids = prompts.iter().map(|(prompt, _)| {
        let wrong = |source: model::Error| Error::Prompt {
            what: "the prompt".to_owned(),
            prompt: (*prompt).to_owned(),
            source: Box::new(source),
        };
        let ids = tokenizer.encode(prompt).map_err(wrong)?.ids;
        match ids.len() {
            tokens if tokens > context => Err(wrong(model::Error::Context { tokens, context })),
            _ => Ok(ids),
        }
    });
    let ids: Vec<Vec<u32>> = ids.collect::<Result<_, _>>()?;
    let mut texts = vec![String::new(); prompts.len()];
    let mut lengths: Vec<usize> = prompts.iter().map(|(_, most)| *most).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for most in lengths {
        let of: Vec<usize> = (0..prompts.len())
            .filter(|&n| prompts[n].1 == most)
            .collect();
        let asked: Vec<Vec<u32>> = of.iter().map(|&n| ids[n].clone()).collect();
        let added = continue_greedily(model, &asked, most, &mut go_on)?;
        let added = added.ok_or(Error::Cancelled)?;
        for (n, added) in of.into_iter().zip(added) {
            texts[n] = tokenizer.decode_after(&ids[n], &added)?;
        }
    }
    Ok(texts)
}

/// Reads a text: every token after the first, which nothing comes before.
///
/// # Errors
/// [`Error::Text`] for a text that does not fit the model; [`Error::Model`].
pub fn read(model: &Model, text: &str) -> Result<Scored, Error> {
    let wrong = |source: model::Error| Error::Text {
        source: Box::new(source),
    };
    let ids = model.tokenizer().encode(text).map_err(wrong)?.ids;
    let context = model.config().context;
    if ids.len() > context {
        let tokens = ids.len();
        return Err(wrong(model::Error::Context { tokens, context }));
    }
    if ids.len() < 2 {
        return Err(Error::Short { tokens: ids.len() });
    }
    foretold(model, ids)
}

/// Reads a text as [`read`] does, one that is longer than the model's context as far as that. None
/// for a text that has no token after the first.
///
/// # Errors
/// [`Error::Text`] for a text that the model cannot read; [`Error::Model`].
pub fn read_beginning(model: &Model, text: &str) -> Result<Option<Scored>, Error> {
    let wrong = |source: model::Error| Error::Text {
        source: Box::new(source),
    };
    let mut ids = model.tokenizer().encode(text).map_err(wrong)?.ids;
    ids.truncate(model.config().context);
    match ids.len() < 2 {
        true => Ok(None),
        false => foretold(model, ids).map(Some),
    }
}

/// Every token after the first, which nothing comes before.
fn foretold(model: &Model, mut ids: Vec<u32>) -> Result<Scored, Error> {
    let target = ids.split_off(1);
    let scored = score(
        model,
        &[Continuation {
            prompt: ids,
            target,
        }],
    )?;
    // One was asked for.
    scored.first().map(scored_as).ok_or(Error::Cancelled)
}

/// Continues a prompt to a text of at most 100 tokens, each drawn from the 5 likeliest, and gives
/// the text with its prompt. `go_on` is asked at every token.
///
/// # Errors
/// [`Error::Cancelled`] when `go_on` says no; [`Error::Prompt`] for a prompt that does not fit the model.
pub fn continue_freely(
    model: &Model,
    prompt: &str,
    seed: u64,
    mut go_on: impl FnMut() -> bool,
) -> Result<String, Error> {
    let tokenizer = model.tokenizer();
    let mut cancelled = false;
    let text = tokenizer.encode(prompt).and_then(|encoding| {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: Some(TOP_K),
            seed,
            max_tokens: TEXT_TOKENS.saturating_sub(encoding.ids.len()),
        };
        let added = model::generate(model, &encoding.ids, &sampling, |_| {
            cancelled = !go_on();
            !cancelled
        })?;
        let text = tokenizer.decode_after(&encoding.ids, &added.ids)?;
        Ok(format!("{prompt}{text}"))
    });
    match text {
        _ if cancelled => Err(Error::Cancelled),
        Ok(text) => Ok(text),
        Err(source) => Err(Error::Prompt {
            what: "generation prompt".to_owned(),
            prompt: prompt.to_owned(),
            source: Box::new(source),
        }),
    }
}
