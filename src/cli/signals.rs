//! How a user, or a machine, ends a command.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The wish that this process ends, SIGTERM or Ctrl-C, from when this is made on: also one that
/// comes while nobody waits for it.
#[derive(Debug)]
pub struct Asked {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Asked {
    /// Listens from now on.
    pub fn listen() -> Self {
        let caught = |kind, name| {
            signal(kind)
                .inspect_err(|error| tracing::warn!(%error, "{name} cannot be caught"))
                .ok()
        };
        Self {
            terminate: caught(SignalKind::terminate(), "SIGTERM"),
            interrupt: caught(SignalKind::interrupt(), "SIGINT"),
        }
    }

    /// Ends when the process is asked to, each time once.
    pub async fn wait(&mut self) {
        tokio::select! {
            () = next(&mut self.terminate) => {}
            () = next(&mut self.interrupt) => {}
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Ends when the process is asked to: SIGTERM or Ctrl-C.
pub async fn asked_to_stop() {
    Asked::listen().wait().await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, id};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_asked_while_nobody_waits_is_heard_later() {
        let mut asked = Asked::listen();
        // As while a coordinator has begun to lead, and does not serve yet.
        for _ in 0..2 {
            let kill = Command::new("kill")
                .args(["-TERM", &id().to_string()])
                .status();
            assert!(kill.unwrap().success());
            asked.wait().await;
        }
        let again = tokio::time::timeout(Duration::from_millis(20), asked.wait()).await;
        assert!(again.is_err(), "asked once, heard twice");
    }
}
