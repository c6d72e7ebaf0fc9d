//! What a model makes of the texts and questions that edits are judged by.

use super::super::engine::Sink;
use super::super::prepare::GateInputs;
use super::units::Stopped;
use crate::edit::downstream::TaskChange;
use crate::edit::measured::{Measured, PerplexityChange};
use crate::eval::{self, Scored};
use crate::model::Model;

/// Looks whether a model can read all questions: before an edit is computed that they would be asked
/// of at its end.
///
/// # Errors
/// The first that it cannot, by its place in its task.
pub(super) fn check(model: &Model, inputs: &GateInputs) -> Result<(), Stopped> {
    for (n, question) in inputs.questions.iter().enumerate() {
        let Err(error) = eval::check_choice(model, question) else {
            continue;
        };
        let task = &question.task;
        let before = inputs.questions[..n].iter();
        let number = before.filter(|it| it.task == *task).count() + 1;
        let what = match error {
            eval::Error::Prompt { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        return Err(Stopped::Unit(format!(
            "gate_questions: question {number} of the task {task:?}: {what}; leave it out, or let fewer solved ones stand              before it (--gate-shots)"
        )));
    }
    Ok(())
}

/// What a model makes of them.
pub(super) struct Readings {
    texts: Vec<Scored>,
    server_texts: Vec<Scored>,
    /// Of each question, whether the right answer is taken.
    right: Vec<bool>,
}

impl Readings {
    /// Reads the texts and asks the questions.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`], a text that the model cannot read, and a question that does not fit
    /// it.
    pub fn of(model: &Model, inputs: &GateInputs, sink: &dyn Sink) -> Result<Self, Stopped> {
        let go_on = || match sink.cancelled() {
            true => Err(Stopped::Cancelled),
            false => Ok(()),
        };
        let read = |texts: &[String]| -> Result<Vec<Scored>, Stopped> {
            let mut scored = Vec::with_capacity(texts.len());
            for text in texts {
                go_on()?;
                scored.extend(eval::read_beginning(model, text)?);
            }
            Ok(scored)
        };
        let texts = read(&inputs.texts)?;
        let server_texts = match inputs.server_texts == inputs.texts {
            true => texts.clone(),
            false => read(&inputs.server_texts)?,
        };
        let mut right = Vec::with_capacity(inputs.questions.len());
        for question in &inputs.questions {
            go_on()?;
            let scores = eval::choose(model, question)?;
            right.push(eval::taken(&scores) == Some(question.right));
        }
        Ok(Self {
            texts,
            server_texts,
            right,
        })
    }

    /// Notes what became of them, from what the model made of them after the edit.
    pub fn note(&self, after: &Self, inputs: &GateInputs, measured: &mut Measured) {
        let change = |before: &[Scored], after: &[Scored]| {
            let perplexity = |texts| eval::perplexity(texts).mean;
            let some = !before.is_empty();
            some.then(|| PerplexityChange::of(perplexity(before), perplexity(after)))
        };
        measured.perplexity = change(&self.texts, &after.texts);
        measured.server_perplexity = change(&self.server_texts, &after.server_texts);
        let answers = self.right.iter().zip(&after.right);
        for (question, (before, after)) in inputs.questions.iter().zip(answers) {
            let tasks = &mut measured.downstream;
            let at = tasks.iter().position(|it| it.task == question.task);
            let at = at.unwrap_or_else(|| {
                tasks.push(TaskChange {
                    task: question.task.clone(),
                    ..TaskChange::default()
                });
                tasks.len() - 1
            });
            tasks[at].questions += 1;
            tasks[at].right_before += u32::from(*before);
            tasks[at].right_after += u32::from(*after);
        }
    }
}
