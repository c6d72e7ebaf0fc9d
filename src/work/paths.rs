//! The paths that a sweep patches heads along.

use super::Wrong;
use crate::proto::v1;
use crate::wire;

/// Most receivers of a sweep, each of whose grids names them.
const MOST_RECEIVERS: usize = 256;

impl v1::TraceSpec {
    /// Paths with receivers, each once, of grids of heads. Which heads there are the model says.
    pub(super) fn check_paths(&self, wrong: &mut Wrong) {
        let Some(paths) = &self.paths else { return };
        let field = "job.trace.paths.receivers";
        let receivers = &paths.receivers;
        if receivers.is_empty() {
            wrong.say(field, "there are none: name at least one, or no paths");
        } else if receivers.len() > MOST_RECEIVERS {
            let what = format_args!("{} are too many: {MOST_RECEIVERS} at most", receivers.len());
            wrong.say(field, what);
            return;
        }
        for (n, receiver) in receivers.iter().enumerate() {
            let field = format_args!("job.trace.paths.receivers[{n}]");
            if receivers[..n].contains(receiver) {
                wrong.say(field, "the receiver is named twice");
            }
            if receiver.input() == v1::HeadInput::Unspecified {
                let what = format_args!(
                    "{} is not an input of a head: use HEAD_INPUT_QUERY, HEAD_INPUT_KEY or \
                     HEAD_INPUT_VALUE",
                    receiver.input
                );
                wrong.say(format_args!("{field}.input"), what);
            }
        }
        let mut kinds = self.kinds.iter().enumerate();
        let of_heads = |kind: i32| {
            let kind = v1::Kind::try_from(kind);
            matches!(kind, Ok(v1::Kind::Head | v1::Kind::HeadAll))
        };
        if let Some((n, &kind)) = kinds.find(|(_, kind)| !of_heads(**kind)) {
            let what = format_args!(
                "paths begin at heads, and this is {}: use KIND_HEAD or KIND_HEAD_ALL, or name no \
                 paths",
                v1::Kind::try_from(kind).map_or("no kind", wire::kind_name)
            );
            wrong.say(format_args!("job.trace.kinds[{n}]"), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(spec: &v1::TraceSpec) -> Vec<String> {
        let mut wrong = Wrong::default();
        spec.check_paths(&mut wrong);
        let said = wrong.into_result().err().unwrap_or_default();
        said.into_iter()
            .map(|(field, what)| format!("{field}: {what}"))
            .collect()
    }

    #[test]
    fn paths_that_cannot_be_are_named_with_the_remedy() {
        let receiver = |layer, input: v1::HeadInput| v1::Receiver {
            layer,
            head: 1,
            input: input as i32,
        };
        let spec = |kinds: &[v1::Kind], receivers: Vec<v1::Receiver>| v1::TraceSpec {
            kinds: kinds.iter().map(|&kind| kind as i32).collect(),
            paths: Some(v1::Paths {
                receivers,
                frozen_mlps: false,
            }),
            ..Default::default()
        };
        let heads = [v1::Kind::Head, v1::Kind::HeadAll];
        let query = receiver(3, v1::HeadInput::Query);
        assert!(said(&spec(&heads, vec![query, receiver(3, v1::HeadInput::Key)])).is_empty());
        assert!(said(&v1::TraceSpec::default()).is_empty());

        for (spec, expected) in [
            (spec(&heads, Vec::new()), "receivers: there are none"),
            (
                spec(&heads, vec![query; 2]),
                "receivers[1]: the receiver is named twice",
            ),
            (
                spec(
                    &heads,
                    (0..300)
                        .map(|n| receiver(n, v1::HeadInput::Value))
                        .collect(),
                ),
                "receivers: 300 are too many: 256 at most",
            ),
            (
                spec(&heads, vec![receiver(3, v1::HeadInput::Unspecified)]),
                "receivers[0].input: 0 is not an input of a head: use HEAD_INPUT_QUERY",
            ),
            (
                spec(&[v1::Kind::Head, v1::Kind::Mlp], vec![query]),
                "kinds[1]: paths begin at heads, and this is mlp: use KIND_HEAD or KIND_HEAD_ALL",
            ),
        ] {
            let said = said(&spec);
            let expected = format!(
                "job.trace.{}{expected}",
                match expected.starts_with("kinds") {
                    true => "",
                    false => "paths.",
                }
            );
            assert!(
                said.len() == 1 && said[0].starts_with(&expected),
                "{said:?}"
            );
        }
    }
}
