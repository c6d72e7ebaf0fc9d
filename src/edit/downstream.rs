//! What became of the questions that an edit is judged by: tasks that it has nothing to do with,
//! and that the model is to do as well afterwards.

/// What the names of these figures begin with.
const NAME: &str = "downstream";

/// How many questions of a task a model answers rightly, before and after an edit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// What the questions are a test of.
    pub task: String,
    /// How many there are.
    pub questions: u32,
    /// Those that are answered rightly before.
    pub right_before: u32,
    /// And after.
    pub right_after: u32,
}

impl TaskChange {
    /// The accuracy before less that after: 0 where nothing changed, and less than 0 where the model
    /// became better.
    pub fn drop(&self) -> f64 {
        // One division: a drop of one question in fifty is 0.02, and no more.
        self.share(f64::from(self.right_before) - f64::from(self.right_after))
    }

    fn share(&self, of: f64) -> f64 {
        of / f64::from(self.questions)
    }

    /// Its parts with their values.
    fn parts(&self) -> [(&'static str, f64); 4] {
        [
            ("questions", self.questions.into()),
            ("before", self.share(self.right_before.into())),
            ("after", self.share(self.right_after.into())),
            ("drop", self.drop()),
        ]
    }
}

/// The figures that are kept with an edit: of each task, and of all questions together. None where
/// nothing was asked.
pub fn named(tasks: &[TaskChange]) -> Vec<(String, f64)> {
    let sum = |of: fn(&TaskChange) -> u32| tasks.iter().map(of).sum();
    let all = TaskChange {
        task: String::new(),
        questions: sum(|it| it.questions),
        right_before: sum(|it| it.right_before),
        right_after: sum(|it| it.right_after),
    };
    let of_all = (!tasks.is_empty()).then(|| all.parts().map(|(part, it)| (whole(part), it)));
    let of_tasks = (tasks.iter())
        .flat_map(|task| (task.parts()).map(|(part, it)| (name(&task.task, part), it)));
    of_all.into_iter().flatten().chain(of_tasks).collect()
}

/// The name of a figure of a task: "downstream.sst2.before".
pub fn name(task: &str, part: &str) -> String {
    format!("{NAME}.{task}.{part}")
}

/// The name of a figure of all questions: "downstream.before".
fn whole(part: &str) -> String {
    format!("{NAME}.{part}")
}

/// Whether a figure is one of these.
pub fn is_one(name: &str) -> bool {
    name.strip_prefix(NAME)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The task whose drop a figure is.
pub fn task_of_drop(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(NAME)?.strip_prefix('.')?;
    rest.strip_suffix(".drop")
}

/// The largest of drops, with its task; of equal ones the first by name. One that is no number is
/// larger than all, for it passes no gate.
pub fn largest<'a>(drops: impl IntoIterator<Item = (&'a str, f64)>) -> Option<(&'a str, f64)> {
    drops.into_iter().max_by(|a, b| {
        let no_number = a.1.is_nan().cmp(&b.1.is_nan());
        no_number.then(a.1.total_cmp(&b.1)).then(b.0.cmp(a.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(task: &str, questions: u32, right_before: u32, right_after: u32) -> TaskChange {
        TaskChange {
            task: task.into(),
            questions,
            right_before,
            right_after,
        }
    }

    #[test]
    fn figures_are_those_of_each_task_and_of_all_questions() {
        let tasks = [task("sst2", 50, 25, 24), task("my.drop", 10, 2, 5)];
        let expected = [
            ("downstream.questions", 60.0),
            ("downstream.before", 27.0 / 60.0),
            ("downstream.after", 29.0 / 60.0),
            ("downstream.drop", -2.0 / 60.0),
            ("downstream.sst2.questions", 50.0),
            ("downstream.sst2.before", 0.5),
            ("downstream.sst2.after", 0.48),
            // 0.5 - 0.48 would be more than 0.02, and fail a gate of as much.
            ("downstream.sst2.drop", 0.02),
            ("downstream.my.drop.questions", 10.0),
            ("downstream.my.drop.before", 0.2),
            ("downstream.my.drop.after", 0.5),
            ("downstream.my.drop.drop", -0.3),
        ];
        let expected: Vec<(String, f64)> = (expected.iter())
            .map(|(name, it)| ((*name).to_owned(), *it))
            .collect();
        assert_eq!(named(&tasks), expected);
        assert!(expected.iter().all(|(name, _)| is_one(name)));
        assert!(!is_one("downstreams.before") && !is_one("ppl.before"));
        assert_eq!(named(&[]), []);
    }

    #[test]
    fn the_largest_drop_is_that_of_a_task() {
        let tasks = [task("b", 10, 5, 4), task("a", 20, 5, 3), task("c", 9, 1, 2)];
        let figures = named(&tasks);
        let drops = (figures.iter()).filter_map(|(name, it)| Some((task_of_drop(name)?, *it)));
        assert_eq!(drops.clone().count(), 3, "and not that of all questions");
        assert_eq!(largest(drops), Some(("a", 0.1)), "of equal ones the first");
        let better = [("x", -0.5), ("y", -0.25)];
        assert_eq!(largest(better), Some(("y", -0.25)));
        let unknown = largest([("y", -f64::NAN), ("x", 1.0)]);
        assert!(unknown.is_some_and(|(task, drop)| task == "y" && drop.is_nan()));
        assert_eq!(largest([]), None);
    }
}
