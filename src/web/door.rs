//! What a door asks of those who come: where they think they are, and who they are.

use std::fmt;
use std::fmt::Write as _;

use serde_json::json;
use tonic::Status;
use tonic::codegen::http::Request;

use super::hosts::Hosts;
use crate::api::listener::Peer;
use crate::api::status::{Reason, status};

/// The header in which a page shows the key.
const KEY: &str = "x-palimpsest-key";

/// The key of a door through which everybody acts as the user who opened it: 256 random bits. It
/// travels in the fragment of the address, which no browser sends to any server.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let mut text = String::with_capacity(64);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}"); // into a string: never fails
        }
        Ok(Self(text))
    }

    /// As it stands in the address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is it. How long that takes tells nothing of how near it is: blake3 compares its
    /// hashes in constant time.
    fn is(&self, shown: &[u8]) -> bool {
        blake3::hash(shown) == blake3::hash(self.0.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What callers have to show.
#[derive(Clone, Debug)]
enum Asks {
    /// The key that this process printed.
    Key(Key),
    /// What the services behind ask for.
    Proof { certificate: bool, token: bool },
}

/// The way in to a console.
#[derive(Clone, Debug)]
pub struct Door {
    pub(super) hosts: Hosts,
    asks: Asks,
}

impl Door {
    /// A door of this machine, for those who have the key.
    pub fn with_key(key: Key) -> Self {
        Self {
            hosts: Hosts::default(),
            asks: Asks::Key(key),
        }
    }

    /// A door of a server whose gate asks for one of these, or for nothing.
    pub fn of_server(hosts: Hosts, certificate: bool, token: bool) -> Self {
        Self {
            hosts,
            asks: Asks::Proof { certificate, token },
        }
    }

    /// Lets a call in, without the key that it showed. Its connection is no stranger's from then on.
    pub(super) fn open<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        let shown = request.headers_mut().remove(KEY);
        let Asks::Key(key) = &self.asks else {
            return Ok(());
        };
        let why = match shown {
            None => "no key came with it",
            Some(shown) if !key.is(shown.as_bytes()) => {
                "its key is of another 'palimpsest console'"
            }
            Some(_) => {
                if let Some(peer) = request.extensions().get::<Peer>() {
                    peer.has_key();
                }
                return Ok(());
            }
        };
        let message = format!(
            "who asks is not known: {why}; open the address that the command printed when it started"
        );
        Err(status(Reason::Unauthenticated, message, []))
    }

    /// What a page is told before it calls anything.
    pub(super) fn sign_in(&self, certificate_shown: bool) -> String {
        let asks: Vec<&str> = match self.asks {
            Asks::Key(_) => vec!["key"],
            Asks::Proof { certificate, token } => [(certificate, "certificate"), (token, "token")]
                .into_iter()
                .filter_map(|(asked, name)| asked.then_some(name))
                .collect(),
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "asks": asks,
            "certificate": certificate_shown,
        })
        .to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_door_with_a_key_opens_to_that_key_alone_and_passes_no_key_on() {
        let key = Key::random().unwrap();
        let door = Door::with_key(key.clone());
        let tried = |shown: Option<&str>| {
            let mut request = Request::new(());
            if let Some(shown) = shown {
                request.headers_mut().insert(KEY, shown.parse().unwrap());
            }
            let opened = door.open(&mut request);
            assert!(!request.headers().contains_key(KEY));
            opened.map_err(|status| status.code())
        };
        assert_eq!(tried(Some(key.as_str())), Ok(()));
        let another = Key::random().unwrap();
        for wrong in [
            None,
            Some(""),
            Some(another.as_str()),
            Some(&key.as_str()[1..]),
        ] {
            assert_eq!(tried(wrong), Err(tonic::Code::Unauthenticated), "{wrong:?}");
        }
        assert_eq!(key.as_str().len(), 64);
        assert!(!format!("{door:?}").contains(key.as_str()));
    }

    #[test]
    fn a_page_is_told_what_it_will_be_asked_for() {
        let told = |door: &Door, shown| -> serde_json::Value {
            serde_json::from_str(&door.sign_in(shown)).unwrap()
        };
        let door = Door::with_key(Key::random().unwrap());
        assert_eq!(told(&door, false)["asks"], json!(["key"]));
        let door = Door::of_server(Hosts::default(), true, true);
        assert_eq!(told(&door, true)["asks"], json!(["certificate", "token"]));
        assert_eq!(told(&door, true)["certificate"], true);
        let door = Door::of_server(Hosts::default(), false, false);
        assert_eq!(told(&door, false)["asks"], json!([]));
    }
}
