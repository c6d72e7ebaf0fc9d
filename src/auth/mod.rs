//! Who somebody is, and what they may do.
//!
//! Whoever calls shows a bearer token ([`Tokens`]) or a certificate ([`certificate`]); either gives
//! a [`Caller`]: a role, and a principal whom the audit log names. What a role may call is one
//! table, [`role`]; what it does not list, nobody may call.

pub mod authority;
pub mod certificate;
mod error;
mod rate;
pub mod role;
mod tls;
mod token;

pub use error::Error;
pub use rate::Rate;
pub use role::{Role, described, methods_of};
pub use tls::{ServerFiles, ServerTls};
pub use token::{Refusal, TokenHash, Tokens, has_token, issue};

/// Somebody who has shown who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What they may do.
    pub role: Role,
    /// Who they are, for the audit log.
    pub principal: String,
}

/// Longest name of a principal in bytes.
const PRINCIPAL_LIMIT: usize = 128;

/// Whether this can be a principal's name: it stands in token files, URIs and headers as it is.
pub fn is_principal(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
    !name.is_empty() && name.len() <= PRINCIPAL_LIMIT && name.chars().all(fits)
}
