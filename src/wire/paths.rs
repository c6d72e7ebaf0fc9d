//! Paths between heads, between the contract and the code that patches them.

use crate::causal::{Input, Paths, Receiver};
use crate::proto::v1;

/// Paths as they came; [`None`] where an input is not one that is known here.
pub fn paths(sent: &v1::Paths) -> Option<Paths> {
    let receiver = |sent: &v1::Receiver| {
        Some(Receiver {
            layer: sent.layer as usize,
            head: sent.head as usize,
            input: match sent.input() {
                v1::HeadInput::Unspecified => return None,
                v1::HeadInput::Query => Input::Query,
                v1::HeadInput::Key => Input::Key,
                v1::HeadInput::Value => Input::Value,
            },
        })
    };
    Some(Paths {
        receivers: sent.receivers.iter().map(receiver).collect::<Option<_>>()?,
        frozen_mlps: sent.frozen_mlps,
    })
}

/// The other way.
pub fn paths_to_proto(paths: &Paths) -> v1::Paths {
    let receiver = |receiver: &Receiver| v1::Receiver {
        layer: receiver.layer as u32,
        head: receiver.head as u32,
        input: match receiver.input {
            Input::Query => v1::HeadInput::Query,
            Input::Key => v1::HeadInput::Key,
            Input::Value => v1::HeadInput::Value,
        } as i32,
    };
    v1::Paths {
        receivers: paths.receivers.iter().map(receiver).collect(),
        frozen_mlps: paths.frozen_mlps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_as_they_went() {
        let receivers = ["9.6.q", "3.0.k", "3.1.v"].map(|it| it.parse().unwrap());
        let sent = Paths {
            receivers: receivers.to_vec(),
            frozen_mlps: true,
        };
        assert_eq!(paths(&paths_to_proto(&sent)), Some(sent));
        let unknown = v1::Paths {
            receivers: vec![v1::Receiver::default()],
            frozen_mlps: false,
        };
        assert_eq!(paths(&unknown), None);
    }
}
