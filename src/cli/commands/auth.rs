//! `palimpsest auth`: certificates, tokens and signing keys.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use crate::audit::Signer;
use crate::auth::{self, Caller, Role, authority, is_principal};
use crate::config::parse_duration;

/// Subcommands of `auth`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a certificate authority, and certificates with configuration files for the coordinator
    /// and for each caller
    Init {
        /// Where everything goes
        folder: PathBuf,
        /// A name or address under which the coordinator is reached; may be repeated
        #[arg(long = "host", value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
        hosts: Vec<String>,
        /// Somebody who needs a certificate, as editor/ada; roles: viewer, submitter, editor,
        /// admin, worker
        #[arg(long = "for", value_name = "ROLE/NAME", default_values = ["admin/admin", "worker/worker"])]
        callers: Vec<String>,
    },
    /// Make a token, add its hash to a file, and print it: it is shown only now
    Token {
        /// The token file, which serve.tokens names; it is made if it is not there
        file: PathBuf,
        /// What its bearer may do: viewer, submitter, editor, admin or worker
        #[arg(long)]
        role: String,
        /// Who its bearer is
        #[arg(long, value_name = "NAME")]
        principal: String,
        /// How long it is good for, such as 720h; for ever if it is not given
        #[arg(long, value_name = "DURATION")]
        expires: Option<String>,
    },
    /// Make a key that you sign versions with, and print the public key that they are checked with:
    /// give it to those who are to check
    SigningKey {
        /// Where the private key goes; nothing is written over
        file: PathBuf,
        /// Who you are to those who check, as ada@lab.example
        #[arg(long)]
        name: String,
    },
}

/// Runs a subcommand.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init {
            folder,
            hosts,
            callers,
        } => {
            let callers = callers
                .iter()
                .map(|text| match text.split_once('/') {
                    Some((role, name)) => caller(role, name),
                    None => bail!("--for '{text}': write ROLE/NAME, as editor/ada"),
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            let made = authority::make(&folder, &hosts, &callers)?;
            say!("the coordinator: palimpsest --config FILE serve; callers likewise");
            show!("{}", made.server.display())?;
            for file in made.callers {
                show!("{}", file.display())?;
            }
        }
        Command::Token {
            file,
            role,
            principal,
            expires,
        } => {
            let caller = caller(&role, &principal)?;
            let expires = expires.as_deref().map(expiry).transpose()?;
            show!("{}", auth::issue(&file, &caller, expires)?)?;
        }
        Command::SigningKey { file, name } => {
            let signer = Signer::named(&name, &file)?;
            signer.write_private(&file)?;
            show!("{}", signer.verifier())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn caller(role: &str, name: &str) -> anyhow::Result<Caller> {
    let role: Role = match role.parse() {
        Ok(role) => role,
        Err(remedy) => bail!("role '{role}': {remedy}"),
    };
    if !is_principal(name) {
        bail!("'{name}' is not a name: give at most 128 letters, digits, '.', '_', '-', '@', '+'");
    }
    Ok(Caller {
        role,
        principal: name.to_owned(),
    })
}

fn expiry(text: &str) -> anyhow::Result<Timestamp> {
    let wrong = |remedy: String| anyhow::anyhow!("--expires '{text}': {remedy}");
    let duration = parse_duration(text).map_err(wrong)?;
    let duration = SignedDuration::try_from(duration).context("--expires")?;
    Ok(Timestamp::now().checked_add(duration)?)
}
