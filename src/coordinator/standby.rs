//! A coordinator that does not lead yet.

use std::time::Duration;

use crate::blocking::{Stopping, blocking};
use crate::objects;
use crate::store::{Error, Follower, Look, Store, Vigil};

/// The pause after a look at a bucket that did not answer.
const AWAY: Duration = Duration::from_secs(1);

/// Follows a store's log until this process leads: when its leader has left it, or was silent for
/// too long. A patient one waits for that however long it takes.
///
/// # Errors
/// [`Error::Led`] for one that is not patient, when somebody leads; those of [`Vigil::look`] and of
/// [`Store::of_leader`].
pub async fn lead(mut follower: Follower, patient: bool) -> Result<Store, Error> {
    let mut vigil = Vigil::default();
    loop {
        let looking = move || {
            let look = vigil.look(&mut follower);
            (follower, vigil, look)
        };
        let look;
        (follower, vigil, look) = blocking(looking).await.map_err(stopping)?;
        let pause = match look {
            Ok(Look::Leads) => break,
            Ok(Look::Again(_)) if vigil.is_alive() && !patient => return Err(follower.led()),
            Ok(Look::Again(pause)) => pause,
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "the log cannot be followed now");
                AWAY
            }
            Err(error) => return Err(error),
        };
        tokio::time::sleep(pause).await;
    }
    blocking(move || Store::of_leader(follower))
        .await
        .map_err(stopping)?
}

fn stopping(Stopping: Stopping) -> Error {
    Error::Object(objects::Error::Stopping)
}
